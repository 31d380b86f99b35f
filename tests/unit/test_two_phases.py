"""Targets that are known only at the end: all rows are graded to a folder of their own, then those aimed at flow on from there.

What Ray does in between is left out: it is replaced by the roles themselves, called row by row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream_rows import write_rows

from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.config import AugmentationConfig, TeacherConfig
from llm2llm_ray.rounds.augmenting import ASKED, UNTOUCHED, Augment, Peers
from llm2llm_ray.rounds.rows import round_rows, tally
from llm2llm_ray.rounds.solving import SOLVED, Solve
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec
from llm2llm_ray.runtime.streaming.streams import ROW_COLUMNS, RayAugmented, RayGraded
from llm2llm_ray.runtime.streaming.transports import RecordedRoute
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example, Reply

TASK = Classification(labels=["billing", "account"])
ROWS = [Example(id=f"s-{n}", input=f"Question number {n}?", output="account" if n % 2 else "billing") for n in range(6)]


@dataclass(kw_only=True)
class WithoutRay(RayGraded):
    written: list[tuple[str, list[str], list[str] | None]] = field(default_factory=list)

    def _write(
        self, folder: str, roles: Sequence[RoleSpec], rows_per_block: int, parts: Sequence[str], columns: list[str] | None
    ) -> None:
        self.written.append((folder, [role.name for role in roles], columns))
        if columns is None:
            found = list(round_rows(self.files, f"{folder}-graded"))
            assert [path for path in self.files.list(f"{folder}-graded") if path.endswith(".parquet")] == list(parts)
        else:
            found = [
                {"id": row.id, "input": row.input, "output": row.output, "origin": row.origin, "seed_id": None} for row in ROWS
            ]
        answered = [self._through(row, roles) for row in found]
        write_rows(self.files, folder, [{**UNTOUCHED, **row} for row in answered])

    def _through(self, row: dict[str, Any], roles: Sequence[RoleSpec]) -> dict[str, Any]:
        async def ask(request: Any) -> Reply:
            return Reply(text=" billing" if "Intent:" in request.prompt.text else "A new one?\n", finish_reason="stop")

        for spec in roles:
            role: Any = spec.role
            row = asyncio.run(role(row, ask))
        return row


def streams(folder: Path, aim: Any) -> tuple[RayAugmented, WithoutRay]:
    files = Files(str(folder))
    version = VersionStore(files).commit(ROWS, parent=None, iteration=0, about={})
    common: dict[str, Any] = {
        "route": RecordedRoute(path="a", sha="s", generation=0), "run_root": files.root, "asker": None,
        "answerer": Answerer(how="recording", model="s", settings={}), "replies": "replies",
    }  # fmt: skip
    teacher = TeacherConfig(kind="scripted", model="t", style="completion")
    augment = Augment(TASK, Peers(TASK, ROWS), teacher=teacher, settings=AugmentationConfig(), iteration=0, run_seed=0)
    graded = WithoutRay(
        files=files, rows=version, solve=RoleSpec(name="student", role=Solve(TASK, max_tokens=8), adds=SOLVED, **common),
        iteration=0, inputs={}, rows_per_block=2, prepare=lambda: None, in_flight_alone=2,
    )  # fmt: skip
    asks = RoleSpec(name="teacher", role=augment, adds=ASKED, **common)
    return RayAugmented(graded=graded, augment=asks, judge=None, inputs={}, choose=aim), graded


def test_wrong_rows_flow_on_in_one_stream(tmp_path: Path) -> None:
    stream, graded = streams(tmp_path, None)
    stream.drain("rounds/r")
    assert graded.written == [("rounds/r", ["student", "teacher"], ROW_COLUMNS)]
    asked = {row["id"] for row in round_rows(graded.files, "rounds/r") if row["target"]}
    assert asked == {"s-1", "s-3", "s-5"}, "whose label is not billing"


def test_targets_flow_on_from_the_folder_of_the_graded_rows(tmp_path: Path) -> None:
    seen: list[str] = []

    def aim(folder: str) -> frozenset[str]:
        seen.append(folder)
        return frozenset({"s-0", "s-1"})

    stream, graded = streams(tmp_path, aim)
    stream.drain("rounds/r")
    assert seen == ["rounds/r-graded"]
    assert graded.written == [("rounds/r-graded", ["student"], ROW_COLUMNS), ("rounds/r", ["teacher"], None)]
    rows = {row["id"]: row for row in round_rows(graded.files, "rounds/r")}
    assert set(rows) == {row.id for row in ROWS} and {id for id, row in rows.items() if row["target"]} == {"s-0", "s-1"}
    assert [rows[id]["correct"] for id in ("s-0", "s-1")] == [True, False]
    told = tally(graded.files, "rounds/r")
    assert (told["evaluated"], told["wrong"], told["rows_asked"], told["right_asked"]) == (6, 3, 2, 1)
