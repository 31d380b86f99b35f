"""Our side of evaluation.py and teacher.py: an actor that stands where a run has its driver, and drains a run's streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import ray

from benchmarks.engines.bare_vllm import EngineArguments, engine_arguments
from llm2llm_ray.asking.request import Request
from llm2llm_ray.runtime.driver.driver import quiet_data_context
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.models.tokens import encode_prompt
from llm2llm_ray.runtime.serving.engines import EngineSpec, engine_handle, identities, start_engines
from llm2llm_ray.runtime.streaming.stream_role import Role
from llm2llm_ray.runtime.streaming.streams import RayAugmented, RayGraded
from llm2llm_ray.runtime.streaming.transports import EngineRoute
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import Reply, Student


class Ours:
    """`role`: whose requests are timed."""

    def __init__(self, role: Literal["student", "teacher"], inputs: Inputs) -> None:
        quiet_data_context()
        self._role = role
        self._parts = Parts(inputs=inputs, files=Files(inputs.run_root), progress=ray.get_runtime_context().current_actor)

    def arguments(self) -> EngineArguments:
        return engine_arguments(self._spec(), self._parts.config.cluster, device=self._parts.inputs.device)

    def start(self) -> list[dict[str, Any]]:
        """Returns when the engine is up: its replicas."""
        inputs, spec = self._parts.inputs, self._spec()
        start_engines([spec], inputs.config.cluster, device=inputs.device, run_folder=inputs.run_root)
        return identities(spec.app)

    def asks(self, inputs: Inputs) -> tuple[str, list[dict[str, Any]]]:
        """The folder of the replies to come, and all requests as token ids. One per row: no attempt depends on a reply."""
        stream = self._stream(inputs)
        graded, spec = (stream.graded, stream.augment) if isinstance(stream, RayAugmented) else (stream, stream.solve)
        rows = [asdict(row) | {"seed_id": None} for row in VersionStore(self._parts.files).rows(graded.rows)]
        augment = None if spec is graded.solve else spec.role
        assert isinstance(spec.route, EngineRoute)
        return spec.replies, _questions(asyncio.run(_requests(rows, graded.solve.role, augment)), spec.route)

    def drain(self, inputs: Inputs) -> tuple[float, float]:
        engine_handle(self._spec().app).broadcast("reset_prefix_cache").results(timeout_s=60)
        stream, began = self._stream(inputs), time.time()
        stream.drain("rounds/timed")
        return began, time.time()

    def expect(self, stream: str, rows: int) -> None:
        """What a stream tells the driver; nobody watches here."""

    def advance(self, stream: str, role: str, rows: int) -> bool:
        return False

    def _stream(self, inputs: Inputs) -> RayGraded | RayAugmented:
        parts = self._parts
        parts.inputs, parts.files = inputs, Files(inputs.run_root)
        student = Student(path=inputs.student_model, sha=inputs.student_sha, iteration=0)
        if self._role == "student":
            assert inputs.test is not None
            return parts.graded(student, inputs.test)
        seeds = list(VersionStore(parts.files).rows(inputs.seeds))
        return parts.augmenter(seeds, inputs.seeds.id).augment(parts.graded(student, inputs.seeds).wrong())

    def _spec(self) -> EngineSpec:
        return next(spec for spec in self._parts.engine_specs() if spec.role == self._role)


async def _requests(rows: Sequence[dict[str, Any]], solve: Role, augment: Role | None) -> list[Request]:
    """What the role asks when every answer of the student is wrong."""
    asked: list[Request] = []

    async def ask(request: Request) -> Reply:
        asked.append(request)
        return Reply(text="", finish_reason="stop")

    answered = [await solve(row, ask) for row in rows]
    if augment is not None:
        asked.clear()
        for row in answered:
            await augment(row, ask)
    return asked


def _questions(requests: Sequence[Request], route: EngineRoute) -> list[dict[str, Any]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(route.tokenizer)
    found = []
    for request in requests:
        ids = encode_prompt(tokenizer, request.prompt.text)
        room = route.max_model_len - len(ids)
        sampling = dict(request.sampling) | {"stop": list(request.prompt.stop) or None}
        sampling["max_tokens"] = min(sampling["max_tokens"], room)
        found.append({"id": request_name(asdict(request)), "token_ids": ids, "sampling": sampling})
    return found


def request_name(request: Mapping[str, Any]) -> str:
    return f"{request['row_id']}/{request['ordinal']}/{request['attempt']}"
