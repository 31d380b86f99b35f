"""The Serve deployment class of both engines: vLLM with two verbs, `ask` and `score`, and weights that change without restart.

Invariant: a reply carries the sha of the weights that produced it, and that is more than a label: the folder's content was hashed
where it was read, and the engine's log-probabilities of a few completions are those of the trainer (`_proved`). A request that
means other weights than the replica holds (it restarted, or was added by the autoscaler) makes the replica load those first,
after its open requests ended. What failed a check answers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray import serve
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.server.llm_server import LLMServer

from llm2llm_ray.runtime.models import hand_off
from llm2llm_ray.runtime.models.node_copy import node_local
from llm2llm_ray.runtime.models.tokens import Row


class ModelIsThere(CallbackBase):
    """Ray would have a task on each node look for the model, in a process that imports all of vLLM for it (8 s of a laptop's
    processor per engine). `resolve_model` has found its folder, or downloaded it, before anything started."""

    def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


def _parameters(sampling: Mapping[str, Any]) -> Any:
    """vLLM's. With a choice its default backend masks the logits by a grammar (xgrammar here); at the end of a choice that no
    other goes on from, only the end of text is left, so the finish reason is "stop"."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    given = dict(sampling)
    choice = given.pop("choice", None)
    held = StructuredOutputsParams(choice=list(choice)) if choice is not None else None
    return SamplingParams(**given, structured_outputs=held, output_kind=RequestOutputKind.FINAL_ONLY)


class EngineServer(LLMServer):
    """`ray.serve.llm`'s server plus `ask` and `load`; token ids in, so that there is one tokenisation in the project."""

    async def __init__(self, llm_config: Any, *, weights_sha: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._own = (str(llm_config.model_loading_config.model_source), weights_sha)
        self._settings = dict(llm_config.engine_kwargs)
        await asyncio.to_thread(node_local, *self._own)
        await super().__init__(llm_config)
        self._sha = ""
        self._own_told: hand_off.Told | None = None
        self._proofs: list[dict[str, Any]] = []
        self._asleep = False
        self._open = 0
        self._answered = 0
        self._turn = asyncio.Condition()
        self._replica = serve.get_replica_context().replica_id.to_full_id_str()
        await self._proved(*self._own, self._own[0])

    async def _start_engine(self) -> None:
        """Without Ray's usage report: it waits for a detached actor of its own, which would outlive the run."""
        await self.engine.start()

    async def score(
        self, prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], weights: tuple[str, str] | None
    ) -> dict[str, Any]:
        """How likely the model finds each completion (ids) behind the prompt; `weights` as for `ask`. Nothing is generated.

        Returns log_probs (of each, the sum over its tokens, in nats), tokens, prompt_tokens, weights_sha, replica, or an error
        as `ask` does.
        """
        from vllm.exceptions import VLLMValidationError

        rows = [Row((*prompt_ids, *completion), len(prompt_ids)) for completion in completions]
        async with self._holding(weights):
            try:
                found = await self._log_probs(rows)
            except (VLLMValidationError, ValueError) as error:
                return {"error": f"refused: {error}", "weights_sha": self._sha, "replica": self._replica}
            self._answered += 1
            return {
                "log_probs": [sum(of) for of in found],
                "tokens": [len(of) for of in found],
                "prompt_tokens": len(prompt_ids),
                "weights_sha": self._sha,
                "replica": self._replica,
            }

    async def ask(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any], request_id: str, weights: tuple[str, str] | None
    ) -> dict[str, Any]:
        """Complete `token_ids`; `weights` is (folder or URI, sha) or None for whatever the engine was started with.

        `sampling`: fields of vLLM's SamplingParams, and `choice`, texts of which the answer is exactly one.
        Returns text, token_ids, finish_reason, prompt_tokens, completion_tokens, weights_sha, replica, seconds. A request
        that the engine refuses (longer than the context, impossible parameters) returns {"error": why} instead.
        """
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError

        started = time.time()
        async with self._holding(weights):
            try:
                params = _parameters(sampling)
                stream = self.engine._engine_client.generate(TokensPrompt(prompt_token_ids=list(token_ids)), params, request_id)
                final = [output async for output in stream][-1]  # FINAL_ONLY: there is one
            except (VLLMValidationError, ValueError) as error:
                return {"error": f"refused: {error}", "weights_sha": self._sha, "replica": self._replica}
            self._answered += 1
            answer = final.outputs[0]
            return {
                "text": answer.text,
                "token_ids": list(answer.token_ids),
                "finish_reason": answer.finish_reason or "stop",
                "prompt_tokens": len(final.prompt_token_ids or ()),
                "completion_tokens": len(answer.token_ids),
                "weights_sha": self._sha,
                "replica": self._replica,
                "seconds": time.time() - started,
            }

    @contextlib.asynccontextmanager
    async def _holding(self, weights: tuple[str, str] | None) -> Any:
        async with self._turn:
            while not self._sha or (weights is not None and weights[1] != self._sha):
                if self._open == 0:
                    await self._swap(*(weights or self._own))
                else:  # open requests mean the weights held now: let them end
                    await self._turn.wait()
            self._open += 1
        try:
            yield
        finally:
            async with self._turn:
                self._open -= 1
                self._turn.notify_all()

    async def load(self, path: str, sha: str) -> dict[str, Any]:
        """Take other weights, once the open requests have ended. Returns replica, weights_sha, seconds, hand_off."""
        started = time.time()
        async with self._holding((path, sha)):
            seconds = time.time() - started
            return {"replica": self._replica, "weights_sha": self._sha, "seconds": seconds, "hand_off": self._proofs[-1]}

    async def rest(self) -> None:
        """Give the GPU to the student's training (`cluster.share_gpu`): weights and cache go, the next request brings them back.

        Not run: vLLM's sleep mode needs a GPU, and none was at hand.
        """
        async with self._turn:
            while self._open:
                await self._turn.wait()
            if not self._asleep:
                await self.sleep(level=2)
                self._asleep, self._sha = True, ""

    async def _swap(self, path: str, sha: str) -> None:
        """Pause, reload from a local folder, drop the key-value cache of the old weights, resume."""
        folder = await asyncio.to_thread(node_local, path, sha)
        await self._tell_of_own(folder)
        self._sha = ""  # if loading fails half-way, nobody may take what is there for either set of weights
        if self._asleep:
            await self.wakeup(tags=["weights"])
            await self._reload(folder)
            await self.wakeup(tags=["kv_cache"])
            self._asleep = False
        else:
            await self.pause(mode="wait")
            try:
                await self._reload(folder)
            finally:
                await self.resume()
        await self._proved(path, sha, folder)

    async def _proved(self, path: str, sha: str, folder: str) -> None:
        """Take the sha for the engine's, once the engine has said what the trainer did. Raises WrongWeights.

        A base model has no trainer: when it comes back after students, it must say what it said before them.
        """
        told, other = self._told_in(folder), "the trainer"
        if sha == self._own[1] and self._own_told is not None:
            told, other = self._own_told, "itself before it had others"
        proof = {"weights_sha": sha, "path": path, "time": time.time()}
        if told is None:
            proof["not_compared"] = "no training of ours left what it says of them, of rows that fit into the engine's context"
        elif self._settings.get("quantization"):
            proof["not_compared"] = "the engine rounds them (engine_kwargs.quantization)"
        else:
            proof |= {"with": other, **hand_off.compared(told, await self._log_probs(told.rows), self._settings["dtype"])}
        self._proofs.append(proof)
        self._sha = sha

    def _told_in(self, folder: str) -> hand_off.Told | None:
        told = hand_off.read(folder)
        fitting = told.fitting(self._settings["max_model_len"]) if told else None
        return fitting if fitting and fitting.rows else None

    async def _tell_of_own(self, folder: str) -> None:
        """Before the weights of the start go for the first time: what they say of the rows of those that come."""
        coming = self._told_in(folder)
        if coming is not None and self._own_told is None and self._sha == self._own[1]:
            said = await self._log_probs(coming.rows)
            self._own_told = replace(coming, log_probs=tuple(map(tuple, said)), dtype=self._settings["dtype"])

    async def _log_probs(self, rows: Sequence[Row]) -> list[list[float]]:
        """Of each row's completion tokens. Such requests do not read vLLM's prefix cache: all is computed.

        Told to read it, vLLM 0.29 returns for cached tokens whatever its memory held, and fails where that is no token.
        """
        from vllm import SamplingParams, TokensPrompt

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)

        async def of(row: Row) -> list[float]:
            stream = self.engine._engine_client.generate(TokensPrompt(prompt_token_ids=list(row.ids)), params, uuid.uuid4().hex)
            told = [output.prompt_logprobs async for output in stream][-1]
            return [told[at][row.ids[at]].logprob for at in range(row.n_prompt, len(row.ids))]

        return list(await asyncio.gather(*map(of, rows)))

    async def _reload(self, folder: str) -> None:
        await self.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        await self.collective_rpc("refresh_tied_head")
        await self.reset_prefix_cache()

    async def identity(self) -> dict[str, Any]:
        """Who answers (replica, weights, node), how often it has, and the proofs of what it loaded."""
        import os

        import ray

        return {
            "replica": self._replica,
            "weights_sha": self._sha,
            "answered": self._answered,
            "hand_offs": list(self._proofs),
            "node": ray.get_runtime_context().get_node_id(),
            "pid": os.getpid(),
        }
