"""E^i and A^i as Ray Data plans: building one starts nothing, `drain` runs it once and writes every row.

read_parquet -> small blocks -> Ask(student), graded -> Ask(teacher) for the wrong rows -> write_parquet. The two roles are
two operators of one streaming plan, so the teacher works while the student is still being evaluated (DESIGN.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import ray

from llm2llm_ray.errors import StreamConsumed
from llm2llm_ray.protocols import WrongStream
from llm2llm_ray.runtime.ask import AskSpec, ask_stage
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import DatasetVersion, Student

ROW_COLUMNS = ["id", "input", "output", "origin", "seed_id"]


@dataclass(kw_only=True)
class RayGraded:
    """A stream of graded rows. `prepare` runs right before it flows (loads the student's weights)."""

    files: Files
    parts: Sequence[str]
    solve: AskSpec
    iteration: int
    inputs: Mapping[str, Any]
    rows_per_block: int
    prepare: Callable[[], None]
    consumed: bool = False

    def wrong(self) -> RayWrong:
        return RayWrong(graded=self)

    def drain(self, folder: str) -> None:
        self.flow(folder, ())

    def flow(self, folder: str, further: Sequence[AskSpec]) -> None:
        if self.consumed:
            raise StreamConsumed(f"the stream of iteration {self.iteration} has flowed already; read {folder} instead")
        self.consumed = True
        self.prepare()
        if self.solve.progress is not None:
            self.solve.progress.expect.remote(sum(self._rows_in(part) for part in self.parts))
        dataset = ray.data.read_parquet(
            [self.files.absolute(part) for part in self.parts], columns=ROW_COLUMNS, ray_remote_args={"num_cpus": 0.1}
        ).repartition(target_num_rows_per_block=self.rows_per_block)
        for spec in (self.solve, *further):
            dataset = ask_stage(dataset, spec, self.rows_per_block)
        dataset.write_parquet(self.files.absolute(folder), ray_remote_args={"num_cpus": 0.1})

    def _rows_in(self, part: str) -> int:
        with self.files.open_input(part) as stream:
            return pq.read_metadata(stream).num_rows


@dataclass(frozen=True, kw_only=True)
class RayWrong:
    graded: RayGraded


@dataclass(frozen=True, kw_only=True)
class RayAugmented:
    graded: RayGraded
    augment: AskSpec
    inputs: Mapping[str, Any]

    @property
    def iteration(self) -> int:
        return self.graded.iteration

    def drain(self, folder: str) -> None:
        self.graded.flow(folder, (self.augment,))


@dataclass(frozen=True, kw_only=True)
class RayErrorSource:
    """`seed` (the rows of D^0, or of D^i with augment_augmented) and `dev` differ only in `parts_for`."""

    graded: Callable[[Student, Sequence[str], str], RayGraded]
    parts_for: Callable[[DatasetVersion], tuple[Sequence[str], str]]
    """D^i -> the Parquet parts to evaluate, and their identity."""

    def stream(self, student: Student, dataset: DatasetVersion) -> RayGraded:
        parts, identity = self.parts_for(dataset)
        return self.graded(student, parts, identity)


@dataclass(frozen=True, kw_only=True)
class RayAugmenter:
    teacher: Callable[[int], tuple[AskSpec, Mapping[str, Any]]]
    """Iteration -> the teacher's part of the stream, and what of it affects the rows."""

    def augment(self, wrong: WrongStream) -> RayAugmented:
        assert isinstance(wrong, RayWrong)
        spec, inputs = self.teacher(wrong.graded.iteration)
        return RayAugmented(graded=wrong.graded, augment=spec, inputs={**wrong.graded.inputs, **inputs})
