"""Engines that only take time: the server of recorded replies, with made-up ones in place of a file (a million would fill none).

Everything around them is the real thing: Ray, Serve's router, the tokenizer, Ray Data, reply store, gates, commit. So what
is measured with them is what the loop itself costs, at replica counts and row counts that no model could serve here.
Which rows are answered wrongly follows from a hash of their token ids, so any two runs agree. Imports little: each replica is a
process that imports it.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve

from llm2llm_ray.config import EngineConfig
from llm2llm_ray.runtime.environment import SERVE, values
from llm2llm_ray.runtime.serving.engines import deployment_options
from llm2llm_ray.runtime.serving.replies_server import TimedServer
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
WORDS = [first + second for first in _SYLLABLES for second in _SYLLABLES]
"""4,900 made-up words: texts of 12 of them are never near copies of each other by chance."""
_ROW_WORDS = 12
RIGHT, WRONG = "yes", "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTime:
    """Example: ServiceTime(service_s=2.0, slots=8, wrong=0.02)"""

    service_s: float = 2.0
    slots: int = 8
    """Requests that a replica works on at once; others wait in it."""
    wrong: float = 0.0
    """Share of the prompts that the student answers wrongly."""
    reply_bytes: int = 1024


class Agreement(Task):
    """Rows of made-up words, all with the same gold answer: right or wrong is then the engine's choice alone."""

    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        return Example(id=row_id, input=str(row["input"]), output=str(row["output"]), origin="seed")

    def student_prompt(self, text: str) -> str:
        return f"Are these words made up?\n{text}\nAnswer:"

    def answer(self, completion: str) -> str | None:
        return next(iter(completion.split()), None)

    def is_correct(self, output: str, completion: str) -> bool:
        return self.answer(completion) == output

    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        shown = "\n".join(f"{n}. {peer.input}" for n, peer in enumerate([*asked.peers, mistake.example], 1))
        return Prompt(text=f"Lines of made-up words:\n{shown}\n")

    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        return [Draft(input=line, output=RIGHT) for line in reply.split("\n")[:count]]


class ServiceTimeEngine(TimedServer):
    """Answers both roles from what it is asked alone, whatever weights are meant. Replies are as large as a real engine's."""

    def __init__(self, service: ServiceTime, role: str) -> None:
        super().__init__(slots=service.slots, service_s=service.service_s)
        self._service, self._role = service, role
        self._token_ids = list(range(1000, 1000 + service.reply_bytes // 4))
        self._padding = "." * service.reply_bytes

    def answer(self, asked: Sequence[int], sampling: Mapping[str, Any]) -> dict[str, Any]:
        draw = zlib.crc32(array("I", asked).tobytes())
        if self._role == "student":
            head = WRONG if draw / 2**32 < self._service.wrong else RIGHT
        else:
            head = made_up(f"{draw}/{sampling.get('seed')}")
        return {
            "text": f"{head}\n{self._padding}"[: self._service.reply_bytes],
            "token_ids": self._token_ids,
            "finish_reason": "stop",
            "prompt_tokens": len(asked),
            "completion_tokens": len(self._token_ids),
        }

    async def ask_many(self, calls: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        """A block of rows in one call: each of `calls` holds the arguments of one `ask`."""
        return list(await asyncio.gather(*[self.ask(*call) for call in calls]))


def made_up(seed: str, words: int = _ROW_WORDS) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def made_up_rows(count: int) -> Iterator[Example]:
    for n in range(count):
        yield Example(id=f"s-{n:07d}", input=made_up(f"row {n}"), output=RIGHT, origin="seed")


def serve_engine(app: str, role: str, replicas: int, service: ServiceTime) -> None:
    """Bring `app` up with, or to, this many replicas; served as `runtime/serving/engines.py` serves, but for the CPU reserved."""
    options = deployment_options(EngineConfig(replicas=replicas, max_num_seqs=service.slots)) | {
        "ray_actor_options": {"num_cpus": 0.01, "runtime_env": {"env_vars": values(SERVE)}},
        "graceful_shutdown_timeout_s": 2,
    }
    # The same version again is scaled in place.
    deployment = serve.deployment(ServiceTimeEngine, name=role).options(**options, version=f"{service}", _internal=True)
    serve.run(deployment.bind(service, role), name=app, route_prefix=None)
