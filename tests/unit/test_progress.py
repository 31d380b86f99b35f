"""The line people watch: in words, and how often where there is no terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.history.progress import Progress, describe


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "run.yaml"
    file.write_text("task: {name: gsm8k, data: d}\nstudent: {model: m}\nteacher: {model: t}\nrun: {name: a, iterations: 3}\n")
    return load_config(file)


@pytest.mark.parametrize("stage", ["train", "fold 2 of 4"])
def test_training(stage: str) -> None:
    line = {"update": 12, "total": 35, "seconds": 2.1, "loss": 0.5}
    status = {"stage": stage, "iteration": 1, "since": 100.0, "training": line}
    assert describe(status, 3, 163.0) == f"iteration 2/3 · {stage} · update 12/35 · loss 0.500 · 2.1 s each · 0:48 left · 1:03"


def test_a_round_shows_both_roles_and_what_is_left_of_the_students() -> None:
    status = {"stage": "round", "iteration": 0, "since": 0.0, "rows": {"student": 20, "teacher": 5}, "total": 60}
    assert describe(status, 3, 10.0) == (
        "iteration 1/3 · round · student 20/60 rows, 2.0/s · 0:20 left · teacher 5/60 rows, 0.5/s · 0:10"
    )


def test_what_takes_minutes_before_the_loop_says_what_it_does() -> None:
    status = {"stage": "models", "since": 0.0, "doing": "downloading part 3 of 22"}
    assert describe(status, 3, 65.0) == "models · downloading part 3 of 22 · 1:05"


def test_nothing_is_divided_by_a_stage_that_has_just_begun() -> None:
    status = {"stage": "round", "iteration": 0, "since": 5.0, "rows": {"student": 0}, "total": 60}
    assert describe(status, 3, 5.0) == "iteration 1/3 · round · student 0/60 rows, 0.0/s · 0:00"


@pytest.mark.parametrize("stage", ["engines", "done", "starting Ray"])
def test_stages_outside_the_loop_name_no_iteration(stage: str) -> None:
    assert describe({"stage": stage}, 3, 10.0) == f"{stage} · 0:00"


def test_a_training_line_of_before_is_not_shown_in_another_stage() -> None:
    line = {"update": 12, "total": 35, "seconds": 2.1, "loss": 0.5}
    assert "update" not in describe({"stage": "commit", "iteration": 0, "training": line}, 3, 1.0)


def test_without_a_terminal_a_plain_line_per_stage_not_per_poll(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(config, Console(file=io.StringIO())) as progress:
        for stage in ("train", "train", "train", "round", "round"):
            progress.show({"stage": stage, "iteration": 0})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["iteration 1/3 · train · 0:00", "iteration 1/3 · round · 0:00"]
    assert "\x1b" not in "".join(lines)
