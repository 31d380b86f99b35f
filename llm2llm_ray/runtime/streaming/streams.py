"""E^i and A^i as Ray Data plans: building one starts nothing, `drain` runs it once and writes every row.

read_parquet, in small blocks -> student, graded -> teacher, for the wrong rows -> judge, for what the teacher wrote ->
write_parquet. The roles are operators of one streaming plan, so the teacher works while the student is still being evaluated.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray

from llm2llm_ray.errors import StreamConsumed, UserError
from llm2llm_ray.protocols import WrongStream
from llm2llm_ray.rounds.folds import FOLD
from llm2llm_ray.runtime.streaming.role_operator import add_role
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import DatasetVersion

ROWS_PER_BLOCK_ALONE = 16
"""Where nobody waits for the wrong rows: a block costs Ray Data its processor time whatever its size."""
_BLOCKS, _MOST_PER_BLOCK = 1024, 64
"""A set of so many blocks gets larger ones instead of more of them, up to a size: in blocks of 64 a row costs two thirds of the
processor time that it costs in blocks of 16, and what overlaps are minutes then."""
ONE_TASK: dict[str, Any] = {"concurrency": 1, "ray_remote_args": {"num_cpus": 0.1}}
"""For reading and writing: each further task at once would start a worker process, seconds of a laptop's CPU, for kilobytes."""
_ROWS_PER_FILE = 4096
"""Written behind the last answer of as many rows: a task and a file for each block of four would cost more than the rows do."""
ROW_COLUMNS = ["id", "input", "output", "origin", "seed_id"]


def block_rows(rows: int, least: int, *, alone: bool) -> int:
    """`alone`: nobody waits for the wrong rows."""
    return max(least, ROWS_PER_BLOCK_ALONE if alone else 1, min(_MOST_PER_BLOCK, rows // _BLOCKS))


@dataclass(kw_only=True)
class RayGraded:
    """A stream of graded rows. `prepare` runs right before it flows (loads the student's weights)."""

    files: Files
    rows: DatasetVersion
    solve: RoleSpec
    iteration: int
    inputs: Mapping[str, Any]
    rows_per_block: int
    prepare: Callable[[], None]
    in_flight_alone: int
    """Student requests open at once when no teacher waits for the wrong answers: no reason to send them in waves."""
    weights: tuple[str, ...] = ()
    """Folders or URIs of the students that answer; `prepare` loads the first. Empty: nobody needs any."""
    consumed: bool = False

    def wrong(self) -> RayWrong:
        return RayWrong(graded=self)

    def drain(self, folder: str) -> None:
        self.flow(folder, ())

    def flow(self, folder: str, further: Sequence[RoleSpec]) -> None:
        if self.consumed:
            raise StreamConsumed(f"the stream of iteration {self.iteration} has flowed already; read {folder} instead")
        self.consumed = True
        gone = next((path for path in self.weights if "://" not in path and not os.path.isdir(path)), None)
        if gone is not None:
            raise UserError(
                f"{gone}: this student is gone (`llm2llm gc` removes students of finished runs), but the changed config "
                "asks it again; remove its training's record in stages/ to train it anew, or start a new run.name"
            )
        stream = uuid.uuid4().hex
        if self.solve.progress is not None:
            self.solve.progress.expect.remote(stream, self.rows.num_rows)
        solve = self.solve if further else replace(self.solve, in_flight=self.in_flight_alone)
        with ThreadPoolExecutor(1) as beside:
            loaded = beside.submit(self.prepare)  # while the stream's processes start; requests name the weights they mean
            per_block = block_rows(self.rows.num_rows, self.rows_per_block, alone=not further)
            roles = [replace(spec, stream=stream) for spec in (solve, *further)]
            columns = [*ROW_COLUMNS, FOLD] if self.solve.by_fold else ROW_COLUMNS
            self._write(folder, roles, per_block, self.rows.parts, columns)
            loaded.result()

    def go_on(self, graded: str, folder: str, further: Sequence[RoleSpec]) -> None:
        """From the rows that were drained to the folder `graded`, through further roles, to `folder`."""
        stream = uuid.uuid4().hex
        if self.solve.progress is not None:
            self.solve.progress.expect.remote(stream, self.rows.num_rows)
        parts = [path for path in self.files.list(graded) if path.endswith(".parquet")]
        per_block = block_rows(self.rows.num_rows, self.rows_per_block, alone=False)
        self._write(folder, [replace(spec, stream=stream) for spec in further], per_block, parts, None)

    def _write(
        self, folder: str, roles: Sequence[RoleSpec], rows_per_block: int, parts: Sequence[str], columns: list[str] | None
    ) -> None:
        # Cut by the task that reads: `repartition` starts a task for each block, and dozens of processes when a set is large.
        dataset = ray.data.read_parquet(
            [self.files.absolute(part) for part in parts],
            columns=columns,
            override_num_blocks=max(1, -(-self.rows.num_rows // rows_per_block)),
            **ONE_TASK,
        )
        for place, (spec, after) in enumerate(zip(roles, [*roles[1:], None], strict=True)):
            asking = rows_per_block if place == 0 else 1  # of a block that reaches the teacher, one row may be wrong
            dataset = add_role(dataset, spec, asking, after)
        dataset.write_parquet(self.files.absolute(folder), min_rows_per_file=_ROWS_PER_FILE, **ONE_TASK)


@dataclass(frozen=True, kw_only=True)
class RayWrong:
    graded: RayGraded


@dataclass(frozen=True, kw_only=True)
class RayAugmented:
    graded: RayGraded
    augment: RoleSpec
    judge: RoleSpec | None
    inputs: Mapping[str, Any]
    choose: Callable[[str], frozenset[str]] | None = None
    """Folder of the graded rows -> ids of those to ask about. None: the wrong ones, each as soon as it is known."""

    @property
    def iteration(self) -> int:
        return self.graded.iteration

    def drain(self, folder: str) -> None:
        if self.choose is None:
            self.graded.flow(folder, tuple(filter(None, (self.augment, self.judge))))
            return
        # Below rounds/, where `gc` finds it; not below `folder`, whose files are this stream's rows.
        graded = f"{folder}-graded"
        self.graded.drain(graded)
        role: Any = self.augment.role
        aimed = replace(self.augment, role=role.aimed_at(self.choose(graded)))
        self.graded.go_on(graded, folder, tuple(filter(None, (aimed, self.judge))))


@dataclass(frozen=True, kw_only=True)
class RayAugmenter:
    teacher: Callable[[int], tuple[RoleSpec, Mapping[str, Any]]]
    """Iteration -> the teacher's part of the stream, and what of it affects the rows."""
    judge: tuple[RoleSpec, Mapping[str, Any]] | None = None
    """The judge's part, where new rows are voted on."""
    choose: Callable[[int, str], frozenset[str]] | None = None
    """Iteration, folder of its graded rows -> ids of those to ask about; None: the wrong ones, with no need of all rows."""

    def augment(self, wrong: WrongStream) -> RayAugmented:
        assert isinstance(wrong, RayWrong)
        iteration = wrong.graded.iteration
        spec, inputs = self.teacher(iteration)
        judge, votes = self.judge or (None, {})
        choose = partial(self.choose, iteration) if self.choose else None
        inputs = {**wrong.graded.inputs, **inputs, **votes}
        return RayAugmented(graded=wrong.graded, augment=spec, judge=judge, inputs=inputs, choose=choose)
