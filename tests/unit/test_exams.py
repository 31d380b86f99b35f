"""The exams at the end of a run, over small ports of the tests' own: who sits them, and what the baseline is matched in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from finished_run import TEST, config
from stream_rows import Stream, solved

from llm2llm_ray.errors import TemporaryFailure
from llm2llm_ray.history.summary import sentence
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.driver.exams import Exams
from llm2llm_ray.storage.files import Files
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import DatasetVersion, Iteration, Round, Student

D0 = DatasetVersion(id="d0", iteration=0, parent=None, parts=(), num_rows=6)
T = DatasetVersion(id="t", iteration=0, parent=None, parts=(), num_rows=20)


@dataclass
class Parts:
    """Students' answers by sha: the first so many test rows right, then so many without an answer."""

    files: Files
    config: Any
    answers: Mapping[str, tuple[int, int]]
    inputs: Any = field(default_factory=lambda: SimpleNamespace(test=T, student_model="", student_sha="base"))

    def graded(self, student: Student, rows: DatasetVersion) -> Stream:
        right, lost = self.answers[student.sha]
        told = [
            solved(row.id, correct=i < right, error="unavailable" if right <= i < right + lost else "")
            for i, row in enumerate(TEST)
        ]
        return Stream(self.files, told, about=student.sha)


@dataclass
class Trainer:
    """Notes what it is asked to train the baseline with."""

    updates: list[int] = field(default_factory=list)

    def train_baseline(self, dataset: DatasetVersion, updates: int) -> Student:
        assert dataset == D0
        self.updates.append(updates)
        return Student(path="", sha="baseline", iteration=0, metrics={"updates": updates})


ANSWERS = {"base": (2, 0), "M0": (9, 0), "M1": (12, 0), "M2": (15, 0), "baseline": (12, 0)}


def hold(
    folder: Path, updates: Sequence[int], *, start_from: str = "base", **answers: tuple[int, int]
) -> tuple[dict[str, Any], Trainer]:
    files, trainer = Files(str(folder)), Trainer()
    versions = RecordedVersions(
        files, Classification(labels=["billing", "account"]), lambda: (), lambda: (), (), config().augmentation
    )
    parts = Parts(files, config(student={"model": "m", "start_from": start_from}), {**ANSWERS, **answers})
    turns = [
        Iteration(
            index=i, dataset=D0, student=Student(path="", sha=f"M{i}", iteration=i, metrics={"updates": n}),
            round=Round(evaluated=6, wrong=3), grown=None,
        )
        for i, n in enumerate(updates)
    ]  # fmt: skip
    exams = Exams(parts, versions, trainer, lambda stage, iteration: None)  # type: ignore[arg-type]
    return exams.hold(turns, D0, ()), trainer


def test_the_baseline_takes_the_last_students_updates(tmp_path: Path) -> None:
    told, trainer = hold(tmp_path, [12, 15, 18])
    assert trainer.updates == [18]
    assert told["matched"] == {"updates": 18, "trainings": 1, "first_is_baseline": False}
    assert [told["accuracy"][who]["updates"] for who in ("untrained", "first", "kept", "baseline")] == [0, 12, 18, 18]


def test_where_each_student_goes_on_from_the_one_before_it_takes_those_of_all(tmp_path: Path) -> None:
    """12, then 15 more, then 18 more: the kept student's weights have seen 45."""
    told, trainer = hold(tmp_path, [12, 15, 18], start_from="previous")
    assert trainer.updates == [45]
    assert told["matched"] == {"updates": 45, "trainings": 3, "first_is_baseline": False}
    assert [told["accuracy"][who]["updates"] for who in ("untrained", "first", "kept", "baseline")] == [0, 12, 45, 45]


def test_with_equal_updates_the_first_student_is_the_baseline(tmp_path: Path) -> None:
    """Nothing is trained for it, and nobody is asked again: one exam of it is recorded."""
    told, trainer = hold(tmp_path, [18, 18, 18])
    assert trainer.updates == []
    assert told["accuracy"]["baseline"] == told["accuracy"]["first"]
    assert told["matched"] == {"updates": 18, "trainings": 1, "first_is_baseline": True}
    assert set(told["differences"]) == {"kept - baseline"}, "the difference to the first is the same one"
    assert told["differences"]["kept - baseline"]["value"] == pytest.approx(0.3)
    assert len(list(tmp_path.glob("stages/exam-*"))) == 3, "untrained, first and kept"
    assert "(18; the first student is the baseline)" in sentence(told)


def test_students_that_go_on_from_each_other_have_taken_more_than_the_first(tmp_path: Path) -> None:
    told, trainer = hold(tmp_path, [18, 18], start_from="previous")
    assert trainer.updates == [36] and not told["matched"]["first_is_baseline"]


def test_accuracies_and_differences_are_of_all_test_rows(tmp_path: Path) -> None:
    told, _ = hold(tmp_path, [12, 15, 18])
    assert {who: (found["hits"], found["total"]) for who, found in told["accuracy"].items()} == {
        "untrained": (2, 20), "first": (9, 20), "kept": (15, 20), "baseline": (12, 20),
    }  # fmt: skip
    assert told["differences"]["kept - baseline"]["value"] == pytest.approx(0.15)


def test_a_student_that_was_not_reached_stops_the_run_before_the_exam_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(TemporaryFailure, match=r"^exam \(kept\): 4 of 20 rows have no answer: 4 unavailable"):
        hold(tmp_path, [12, 15, 18], M2=(15, 4))
    told, _ = hold(tmp_path, [12, 15, 18])
    assert told["accuracy"]["kept"]["hits"] == 15
