"""What answers in an engine's place without a model: the same verbs behind the same queues, after a service time.

Invariant: of `slots` requests at once each takes its service time, the others wait in the replica, as in a vLLM engine. A reply
carries the sha of what it came from.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve

from llm2llm_ray.asking.recorded import RecordedReplies
from llm2llm_ray.runtime.models.hand_off import WrongWeights
from llm2llm_ray.runtime.priority import stands
from llm2llm_ray.storage.files import read_anywhere


class TimedServer:
    """A subclass says what is answered; its `load` takes what it answers from, before the first request too."""

    def __init__(self, *, slots: int, service_s: float) -> None:
        self._slots, self._service_s = asyncio.Semaphore(slots), service_s
        self._replica = serve.get_replica_context().replica_id.to_full_id_str()
        self._sha = ""
        self._answered = 0
        stands()

    def answer(self, asked: Sequence[Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
        """As `EngineServer.ask` returns it, less what is the same for all: text, finish_reason, tokens; or {"error": why}, which
        takes no time, as nobody was at work."""
        raise NotImplementedError

    async def take(self, path: str, sha: str) -> None:
        """Have what is at `path` to answer from. Raises WrongWeights when that is not `sha`."""

    async def ask(
        self, asked: Sequence[Any], sampling: Mapping[str, Any], request_id: str, weights: tuple[str, str] | None
    ) -> dict[str, Any]:
        """`asked`: what is asked, as the subclass knows it. Else as `EngineServer.ask`."""
        if weights is not None and weights[1] != self._sha:
            await self.load(*weights)
        sha, answer = self._sha, self.answer(asked, sampling)
        if "error" not in answer:
            async with self._slots:
                await asyncio.sleep(self._service_s)
            self._answered += 1
        return {**answer, "weights_sha": sha, "replica": self._replica, "seconds": self._service_s}

    async def load(self, path: str, sha: str) -> dict[str, Any]:
        started = time.time()
        await self.take(path, sha)
        self._sha = sha
        return {"replica": self._replica, "weights_sha": sha, "seconds": time.time() - started}

    async def rest(self) -> None:
        """Holds no GPU that it could give to the training."""

    async def identity(self) -> dict[str, Any]:
        """Who answers (replica, what from, node), and how often it has. No proofs of weights: there are none."""
        return {
            "replica": self._replica,
            "weights_sha": self._sha,
            "answered": self._answered,
            "hand_offs": [],
            "node": ray.get_runtime_context().get_node_id(),
            "pid": os.getpid(),
        }


class RepliesServer(TimedServer):
    """Serves a file of recorded replies. `asked` is (prompt_sha, ordinal, attempt)."""

    async def __init__(self, path: str, sha: str, *, file: str, slots: int, service_s: float) -> None:  # type: ignore[misc]
        """`path`: where every node finds it; `file`: as the user named it."""
        super().__init__(slots=slots, service_s=service_s)
        self._file = file
        await self.load(path, sha)

    async def take(self, path: str, sha: str) -> None:
        replies = await asyncio.to_thread(lambda: RecordedReplies(self._file, read_anywhere(path)))
        if replies.about.sha != sha:
            raise WrongWeights(f"{path}: the replies there are {replies.about.sha}, not {sha} as they were when the run began")
        self._replies = replies

    def answer(self, asked: Sequence[Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
        prompt_sha, ordinal, attempt = asked
        reply = self._replies.find((prompt_sha, ordinal, attempt), sampling)
        said = {"model": reply.model, "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        if reply.error:
            return {"error": reply.error, **said}
        return {"text": reply.text, "finish_reason": reply.finish_reason, **said}
