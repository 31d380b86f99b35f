"""Whether the teacher is asked for rows, and which student is kept: over real records and streams of the tests' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from finished_run import TEST, config
from stream_rows import Stream, solved

from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.driver.worth_asking import WorthAsking
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import DatasetVersion, Example, Student

DEV = DatasetVersion(id="dev", iteration=0, parent=None, parts=(), num_rows=20)


@dataclass
class Parts:
    """How many of the 20 dev rows each has right."""

    files: Files
    config: Any
    right: Mapping[str, int]
    dev: DatasetVersion | None = DEV
    recorded: int = 20
    """Dev rows that the teacher's file has."""

    @property
    def inputs(self) -> Any:
        return SimpleNamespace(dev=self.dev)

    def graded(self, student: Student, rows: DatasetVersion) -> Stream:
        return self._stream(student.sha, rows)

    def teacher_exam(self, rows: DatasetVersion, seeds: Iterable[Example]) -> Stream:
        return self._stream("teacher", rows)

    def _stream(self, who: str, rows: DatasetVersion) -> Stream:
        assert rows is DEV
        told = [
            solved(
                row.id, correct=i < self.right[who], error="not_recorded" if who == "teacher" and i >= self.recorded else ""
            )
            for i, row in enumerate(TEST)
        ]  # fmt: skip
        return Stream(self.files, told, about=who)


def asking(folder: Path, right: Mapping[str, int], *, dev: bool = True, recorded: int = 20, **sections: Any) -> WorthAsking:
    files = Files(str(folder))
    settings = config(**sections)
    versions = RecordedVersions(
        files, Classification(labels=["billing", "account"]), lambda: (), lambda: (), (), settings.augmentation
    )
    parts = Parts(files, settings, right, DEV if dev else None, recorded)
    return WorthAsking(parts, versions, Events(files), ())  # type: ignore[arg-type]


def student(n: int) -> Student:
    return Student(path="", sha=f"M{n}", iteration=n)


CHECKED, REQUIRED = {"check_teacher": True}, {"require_better_teacher": True}


@pytest.mark.parametrize(("teacher", "better"), [(15, True), (12, False), (9, False)])
def test_a_teacher_that_is_no_better_is_told_and_stops_the_run_only_where_that_is_asked(
    tmp_path: Path, teacher: int, better: bool
) -> None:
    right = {"M0": 12, "teacher": teacher}
    told = asking(tmp_path / "told", right, evaluation=CHECKED)
    assert told(student(0)) and told.stopped == ""
    assert told.teacher_check is not None and told.teacher_check["better"] is better
    assert (told.teacher_check["teacher"]["hits"], told.teacher_check["student"]["hits"]) == (teacher, 12)
    required = asking(tmp_path / "required", right, augmentation=REQUIRED)
    assert required(student(0)) is better
    assert ("require_better_teacher" in required.stopped) is not better
    stops = [event for event in Events(Files(str(tmp_path / "required"))).read() if event["event"] == "asking_stopped"]
    assert len(stops) == (not better)


def test_the_teacher_is_examined_once_and_not_at_all_where_it_is_not_asked(tmp_path: Path) -> None:
    found = asking(tmp_path, {"M0": 12, "M1": 12, "teacher": 15}, evaluation=CHECKED)
    assert found(student(0)) and found(student(1))
    assert [event["stage"] for event in Events(Files(str(tmp_path))).read() if event["event"] == "stage_finished"] == ["exam"] * 2
    assert asking(tmp_path / "b", {})(student(0)), "nothing is examined"
    assert asking(tmp_path / "c", {}, dev=False, evaluation=CHECKED)(student(0)), "nor where there are no dev rows"


def test_asking_ends_after_so_many_students_without_a_gain(tmp_path: Path) -> None:
    right = {"M0": 10, "M1": 12, "M2": 12, "M3": 11}
    found = asking(tmp_path, right, run={"name": "toy", "patience": 2, "keep": "best"})
    assert [found(student(n)) for n in range(4)] == [True, True, True, False]
    assert found.stopped == "no gain on the dev rows for 2 students (run.patience)"
    assert found.kept([student(n) for n in range(4)]) == 2
    assert {at: told["hits"] for at, told in found.told()["dev"].items()} == {"0": 10, "1": 12, "2": 12, "3": 11}


def test_the_last_student_is_kept_where_nothing_is_chosen(tmp_path: Path) -> None:
    students = [student(0), student(1)]
    assert asking(tmp_path, {}).kept(students) == 1
    best = {"name": "toy", "keep": "best"}
    assert asking(tmp_path, {}, dev=False, run=best).kept(students) == 1
    assert asking(tmp_path, {"M0": 12, "M1": 3}, run=best).kept(students) == 0


def test_a_teacher_whose_file_lacks_dev_rows_is_not_known_to_be_better(tmp_path: Path) -> None:
    right = {"M0": 12, "teacher": 20}
    told = asking(tmp_path / "told", right, recorded=15, evaluation=CHECKED)
    assert told(student(0)) and told.teacher_check is not None and told.teacher_check["better"] is None
    required = asking(tmp_path / "required", right, recorded=15, augmentation=REQUIRED)
    assert not required(student(0)) and "5 of 20 dev rows are not in its file" in required.stopped
