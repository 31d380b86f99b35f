"""What a finished run says of itself: above all, whether it helped, and that it says so when it did not."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llm2llm_ray.accuracy import paired_difference, proportion
from llm2llm_ray.config.file import load_config
from llm2llm_ray.history.summary import asking_sentences, not_known, render, sentence


def exams(gained: int, lost: int, both: int = 100) -> dict[str, Any]:
    """The kept student gets `gained` rows that the baseline does not, and the other way round `lost`."""
    total = gained + lost + both
    ours = {str(i): i < gained + both for i in range(total)}
    theirs = {str(i): i >= gained for i in range(total)}
    found = paired_difference(ours, theirs)
    accuracy = {
        who: {**asdict(proportion(sum(marks.values()), total)), "truncated": 0, "updates": 20}
        for who, marks in (("kept", ours), ("baseline", theirs))
    }
    return {"accuracy": accuracy, "differences": {"kept - baseline": asdict(found) | {"verdict": found.verdict}}}


@pytest.mark.parametrize(
    ("gained", "lost", "begins", "points"),
    [
        (30, 5, "It helped: ", "+18.5 points"),
        (5, 30, "It did not help, it hurt: ", "-18.5 points"),
        (12, 10, "It is not shown to have helped: ", "+1.6 points"),
        (0, 0, "It is not shown to have helped: ", "+0.0 points"),
    ],
)
def test_the_sentence_says_what_the_interval_says(gained: int, lost: int, begins: str, points: str) -> None:
    told = sentence(exams(gained, lost))
    assert told.startswith(begins + points)
    assert "same number of updates" in told and "One run" in told


def test_without_a_baseline_it_does_not_claim_anything() -> None:
    told = sentence(
        {"accuracy": {}, "differences": {"kept - first": {"value": 0.3, "low": 0.2, "high": 0.4, "verdict": "better"}}}
    )
    assert "cannot say" in told and "helped:" not in told


def test_a_student_that_does_not_know_its_rows_is_named_with_what_helps() -> None:
    def turns(*shares: float) -> list[dict[str, Any]]:
        return [{"index": n, "student": {"metrics": {"token_accuracy": share}}} for n, share in enumerate(shares)]

    assert not_known(turns(0.95, 1.0)) == ""
    assert not_known([{"index": 0, "student": {"metrics": {}}}]) == "", "a run of an earlier version"
    line = "iteration 1: the student does not know its training rows yet (token accuracy 0.81): raise student.updates"
    assert not_known(turns(0.99, 0.81)) == line
    assert not_known(turns(0.5, 0.81)).startswith("iterations 0, 1: ") and "accuracy 0.50, 0.81)" in not_known(turns(0.5, 0.81))


def report(**other: Any) -> dict[str, Any]:
    turn = {
        "index": 0,
        "dataset": {"num_rows": 32},
        "student": {"metrics": {"updates": 20}},
        "round": {"wrong": 9, "evaluated": 32, "asked": 11, "accepted": 7, "rejected": {"duplicate": 3, "empty": 1}},
        "seconds": {"train": 61.0, "round": 12.34},
    }
    return {"run": "demo", "iterations": [turn], "engine_seconds": 61.0, **other}


def shown(tmp_path: Path, told: dict[str, Any]) -> str:
    file = tmp_path / "run.yaml"
    file.write_text(
        "task: {name: gsm8k, data: d}\nstudent: {model: m}\nteacher: {model: t}\nrun: {name: demo, folder: /data/runs}\n"
    )
    console = Console(file=io.StringIO(), width=220)
    render(told, load_config(file), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_tables_hold_what_the_report_holds(tmp_path: Path) -> None:
    text = shown(tmp_path, report(exams=exams(30, 5)))
    row = next(line for line in text.splitlines() if "9/32" in line)
    cells = [cell.strip() for cell in row.strip("│┃ ").split("│")]
    assert cells == ["0", "32", "20", "9/32", "0", "11", "7", "duplicate 3, empty 1", "61.0", "12.3", "-"]
    assert "kept student (LLM2LLM)" in text and "130/135" in text and "0.963" in text
    assert "It helped" in text
    assert "/data/runs/demo/" in text


def test_a_finished_run_says_that_a_student_does_not_know_its_rows(tmp_path: Path) -> None:
    told = report(exams=exams(30, 5))
    assert "does not know" not in shown(tmp_path, told)
    told["iterations"][0]["student"]["metrics"]["token_accuracy"] = 0.81
    assert "its training rows yet (token accuracy 0.81): raise student.updates" in shown(tmp_path, told)


def test_rows_without_an_answer_have_columns_of_their_own(tmp_path: Path) -> None:
    told = report(exams=exams(30, 5))
    told["iterations"][0]["round"]["errors"] = {"prompt_too_long": 1, "refused": 1}
    told["exams"]["accuracy"]["kept"]["errors"] = {"prompt_too_long": 4}
    text = shown(tmp_path, told)
    assert "wrong" in text and "unanswered" in text and "errors" not in text
    for begins, count in (("9/32", "2"), ("130/135", "4")):
        cells = [cell.strip() for line in text.splitlines() if begins in line for cell in line.strip("│┃ ").split("│")]
        assert cells[cells.index(begins) + 1] == count


@pytest.mark.parametrize(
    ("trainings", "says"),
    [
        (1, "of updates (60)."),
        (3, "of updates (60, of all 3 trainings that the kept student went through)."),
    ],
)
def test_it_says_by_what_the_baseline_was_matched(trainings: int, says: str) -> None:
    assert says in sentence(exams(30, 5) | {"matched": {"updates": 60, "trainings": trainings}})


def test_a_run_without_a_test_set_shows_no_accuracy(tmp_path: Path) -> None:
    text = shown(tmp_path, report(exams=None))
    assert "test set" not in text and "helped" not in text


def test_who_could_not_be_examined_is_told_with_the_reason() -> None:
    why = "teacher.budget ran out: 3 of 8 test rows were not asked"
    exams = {"accuracy": {}, "differences": {}, "left_out": {"teacher": why}}
    assert sentence(exams).endswith(f"Left out: teacher itself ({why}).")


def test_the_teachers_check_is_told() -> None:
    def told(**check: Any) -> list[str]:
        return asking_sentences({"teacher_check": {"student": {"hits": 18, "total": 32}, **check}, "stopped": ""})

    assert told(teacher={"hits": 32, "total": 32}, better=True) == [
        "Before the teacher was asked for rows, it had 32 of 32 dev rows right itself, the first student 18 of 32."
    ]
    assert told(teacher={"hits": 9, "total": 32}, better=False)[0].startswith(
        "The teacher is not better than the student: it had 9"
    )
    assert "is not known" in told(teacher=None, better=None)[0]
    assert asking_sentences({"teacher_check": None, "stopped": "no gain"}) == ["No more rows were asked for: no gain."]
    assert asking_sentences({}) == []
