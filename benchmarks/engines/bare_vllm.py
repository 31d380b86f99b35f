"""The baseline of evaluation.py and teacher.py: vLLM's AsyncLLM alone, in a process of its own, asked for token ids.

`engine_arguments` is the one place where its arguments and environment come from, and it takes them from what our engines get.
Where AsyncLLM can do better than ours it does: uvloop, no statistics, parameters built before the clock starts, as many requests
submitted at once as it is told. The process holds no Ray, and sleeps while it is asked nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm2llm_ray.config import ClusterConfig
    from llm2llm_ray.runtime.serving.engines import EngineSpec

_END_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArguments:
    kwargs: Mapping[str, Any]
    """Of vLLM's AsyncEngineArgs."""
    env: Mapping[str, str]


def engine_arguments(spec: EngineSpec, cluster: ClusterConfig, *, device: str) -> EngineArguments:
    """What `ray.serve.llm` hands to AsyncEngineArgs for this engine, and the environment it sets. Imports vLLM."""
    from llm2llm_ray.runtime.environment import RUN_MARK
    from llm2llm_ray.runtime.serving.cpu_engine import EXECUTOR
    from llm2llm_ray.runtime.serving.engines import llm_config

    config = llm_config(spec, cluster, device=device, run_folder="")
    kwargs = dict(config.get_engine_config().get_initialization_kwargs())
    if device == "cpu" and spec.engine.tensor_parallel == 1:
        kwargs["distributed_executor_backend"] = EXECUTOR  # as ours has it (cpu_engine.py)
    else:
        del kwargs["distributed_executor_backend"]  # Ray's on GPU: vLLM's own is never slower
    env = dict(config.runtime_env["env_vars"])
    del env[RUN_MARK]  # it is no process of a run
    return EngineArguments(kwargs=kwargs | {"disable_log_stats": True}, env=env)


class BareVLLM:
    """The process, seen from the benchmark. Its output goes to `log`."""

    def __init__(self, arguments: EngineArguments, log: Path) -> None:
        self._pipe, theirs = Pipe()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.engines.bare_vllm", str(theirs.fileno())],
                env=os.environ | arguments.env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        theirs.close()  # so that its end is heard here
        self._log = log
        self._pipe.send(dict(arguments.kwargs))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        self._received()

    def answer(self, questions: Sequence[Mapping[str, Any]], in_flight: int | None) -> dict[str, Any]:
        """{"first", "last", "answers": {id: [text, prompt tokens, completion tokens]}}, with an empty prefix cache.

        `questions` have id, token_ids and sampling. `in_flight` None: all are submitted at once.
        """
        self._pipe.send({"questions": list(questions), "in_flight": in_flight})
        return self._received()

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _received(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            tail = "".join(self._log.read_text(errors="replace").splitlines(keepends=True)[-20:])
            raise SystemExit(f"bare vLLM ended ({self._log}):\n{tail}") from None


async def _serve(pipe: Connection) -> None:
    from vllm import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(**pipe.recv())
    # Defaults that depend on who uses the engine: those of a server, as Ray's.
    engine = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.OPENAI_API_SERVER)
    try:
        pipe.send("ready")
        while True:
            asked = await asyncio.to_thread(pipe.recv)
            pipe.send(await _answered(engine, **asked))
    except EOFError:  # the benchmark has ended
        return
    finally:
        engine.shutdown()


async def _answered(engine: Any, questions: Sequence[Mapping[str, Any]], in_flight: int | None) -> dict[str, Any]:
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    if not await engine.reset_prefix_cache():
        raise RuntimeError("the prefix cache could not be emptied: requests are open")
    prepared = [
        (
            str(question["id"]),
            TokensPrompt(prompt_token_ids=question["token_ids"]),
            SamplingParams(**question["sampling"], output_kind=RequestOutputKind.FINAL_ONLY),
        )
        for question in questions
    ]
    slots = asyncio.Semaphore(in_flight or len(prepared))

    async def one(request_id: str, prompt: Any, params: Any) -> tuple[str, Any, float]:
        async with slots:
            final = None
            async for output in engine.generate(prompt, params, request_id):
                final = output
            return request_id, final, time.time()

    first = time.time()
    found = await asyncio.gather(*[one(*item) for item in prepared])
    answers = {
        name: [final.outputs[0].text, len(final.prompt_token_ids), len(final.outputs[0].token_ids)] for name, final, _ in found
    }
    return {"first": first, "last": max(until for _, _, until in found), "answers": answers}


def main() -> None:
    import uvloop

    handle = int(sys.argv[1])
    os.set_inheritable(handle, False)  # the engine's processes must not keep the pipe open
    uvloop.run(_serve(Connection(handle)))


if __name__ == "__main__":
    main()
