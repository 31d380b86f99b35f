"""Engines that only take time: a Serve deployment whose answer comes after `service_s` seconds in one of `slots` slots.

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

from llm2llm_ray.runtime.environment import SERVE, values
from llm2llm_ray.runtime.serving.engines import queues
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


class ServiceTimeEngine:
    """The verbs of `EngineServer` that a run uses. Replies are as large as a real engine's."""

    def __init__(self, service: ServiceTime, role: str, sha: str) -> None:
        self._service, self._role, self._sha = service, role, sha
        self._slots = asyncio.Semaphore(service.slots)
        self._replica = serve.get_replica_context().replica_id.to_full_id_str()
        self._token_ids = list(range(1000, 1000 + service.reply_bytes // 4))
        self._padding = "." * service.reply_bytes

    async def ask(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any], request_id: str, weights: tuple[str, str] | None
    ) -> dict[str, Any]:
        draw = zlib.crc32(array("I", token_ids).tobytes())
        async with self._slots:
            await asyncio.sleep(self._service.service_s)
        if self._role == "student":
            head = WRONG if draw / 2**32 < self._service.wrong else RIGHT
        else:
            head = made_up(f"{draw}/{sampling.get('seed')}")
        return {
            "text": f"{head}\n{self._padding}"[: self._service.reply_bytes],
            "token_ids": self._token_ids,
            "finish_reason": "stop",
            "prompt_tokens": len(token_ids),
            "completion_tokens": len(self._token_ids),
            "weights_sha": weights[1] if weights else self._sha,
            "replica": self._replica,
            "seconds": self._service.service_s,
        }

    async def ask_many(self, calls: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        """A block of rows in one call: each of `calls` holds the arguments of one `ask`."""
        return list(await asyncio.gather(*[self.ask(*call) for call in calls]))

    async def load(self, path: str, sha: str) -> dict[str, Any]:
        self._sha = sha
        return {"replica": self._replica, "weights_sha": sha, "seconds": 0.0}

    async def identity(self) -> dict[str, Any]:
        return {"replica": self._replica, "weights_sha": self._sha, "hand_offs": []}


def made_up(seed: str, words: int = _ROW_WORDS) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def made_up_rows(count: int) -> Iterator[Example]:
    for n in range(count):
        yield Example(id=f"s-{n:07d}", input=made_up(f"row {n}"), output=RIGHT, origin="seed")


def serve_engine(app: str, role: str, replicas: int, service: ServiceTime) -> None:
    """Bring `app` up with, or to, this many replicas; queues are as `runtime/serving/engines.py` sets them."""
    deployment = serve.deployment(ServiceTimeEngine, name=role).options(
        **queues(service.slots),
        num_replicas=replicas,
        ray_actor_options={"num_cpus": 0.01, "runtime_env": {"env_vars": values(SERVE)}},
        graceful_shutdown_timeout_s=2,
        version=f"{service}",  # the same version again is scaled in place
        _internal=True,
    )
    serve.run(deployment.bind(service, role, "as started"), name=app, route_prefix=None)
