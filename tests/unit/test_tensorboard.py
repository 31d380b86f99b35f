"""A run's curves: what a line of the training log and an iteration become."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llm2llm_ray.runtime.driver.tensorboard import Board
from llm2llm_ray.types import DatasetVersion, Iteration, Round, Student

LINE = {"time": 1.0, "event": "update", "update": 3, "total": 12, "loss": 2.5, "lr": 4e-5, "seconds": 3.7}
ITERATION = Iteration(
    index=1,
    dataset=DatasetVersion(id="v", iteration=1, parent=None, parts=(), num_rows=42),
    student=Student(path="s", sha="w", iteration=1, metrics={"updates": 18}),
    round=Round(evaluated=32, wrong=4, errors={"refused": 4}, asked=5, accepted=3, rejected={"duplicate": 2}),
    grown=None,
)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_updates_iterations_and_exams_are_curves(tmp_path: Path) -> None:
    board = Board(str(tmp_path))
    board.update("train-1", LINE)
    board.iteration(ITERATION)
    board.exams({"kept": {"value": 0.5, "errors": {"bad_request": 2, "refused": 1}}}, 1)
    board.close()
    found = curves(tmp_path)
    assert found["train-1/loss"] == [(3, 2.5)] and found["train-1/lr"] == [(3, 4e-5)] and found["train-1/seconds"] == [(3, 3.7)]
    assert found["loop/rows"] == [(1, 42)] and found["loop/error_source_accuracy"] == [(1, 0.75)]
    assert found["loop/wrong"] == [(1, 4)] and found["loop/unanswered"] == [(1, 4)] and found["test_unanswered/kept"] == [(1, 3)]
    assert found["loop/accepted"] == [(1, 3)] and found["loop/rejected"] == [(1, 2)] and found["test/kept"] == [(1, 0.5)]


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    board = Board(None)
    board.update("train-1", LINE)
    board.iteration(ITERATION)
    assert not list(tmp_path.iterdir())
