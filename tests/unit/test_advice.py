"""A plan from which a student cannot learn says so, with what to change; after the change it says nothing."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llm2llm_ray.cli import main
from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.planning.advice import ENOUGH_UPDATES, FEW_PASSES, FEW_UPDATES, _updates
from llm2llm_ray.planning.plan import plan
from llm2llm_ray.planning.plan_table import render_plan
from llm2llm_ray.preflight import check

JOBS = Path(__file__).parents[2] / "jobs"
TWO_ENGINES = Path(__file__).parents[2] / "benchmarks" / "two_engines.yaml"
GOOD: dict[str, Any] = {"global_batch_size": 8, "updates": 60}


def rows(count: int, labels: tuple[str, ...], start: int) -> list[dict[str, str]]:
    return [
        {"text": f"number {n} is about {labels[n % len(labels)]}", "label": labels[n % len(labels)]}
        for n in range(start, start + count)
    ]


def told(
    folder: Path,
    *,
    seeds: list[dict[str, str]] | None = None,
    test: int = 40,
    labels: tuple[str, ...] = ("billing", "login"),
    student: dict[str, Any] | None = None,
    **sections: dict[str, Any],
) -> list[str]:
    for name, items in (
        ("seed", seeds or rows(32, labels, 0)),
        ("test", rows(test, labels, 1000)),
        ("dev", rows(10, labels[:1], 5000)),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    (folder / "replies.jsonl").write_text('{"reply": "a new text"}\n')
    config = Config.model_validate(
        {
            "recipe": "paper",
            "task": {"name": "classification", "data": str(folder), "options": {"labels": list(labels)}},
            "student": {"model": "m", **(GOOD if student is None else student)},
            "teacher": {"kind": "scripted", "model": str(folder / "replies.jsonl")},
            "run": {"name": "toy"},
            **sections,
        }
    )
    return list(plan(config, check(config, folder)).advice)


def test_a_plan_that_can_work_is_not_talked_about(tmp_path: Path) -> None:
    assert told(tmp_path) == []


def test_the_papers_settings_on_fifty_rows_plan_three_updates_and_say_so(tmp_path: Path) -> None:
    labels = ("billing", "login")
    (line,) = told(tmp_path, seeds=rows(50, labels, 0), student={})
    assert line.startswith("Too few updates to learn from: the first student takes 3, 3.0 passes over its 50 seeds.")
    assert line.endswith("Set student.global_batch_size=8 and student.updates=94 or auto.")
    for updates in (94, "auto"):
        assert told(tmp_path, seeds=rows(50, labels, 0), student={"global_batch_size": 8, "updates": updates}) == []


@given(seeds=st.integers(2, 3000), batch=st.integers(1, 256), updates=st.integers(1, 3000))
def test_what_is_proposed_is_enough(seeds: int, batch: int, updates: int) -> None:
    def lines(batch: int, updates: int) -> list[str]:
        config = Config.model_validate(
            {
                "recipe": "paper",
                "task": {"name": "classification", "data": "x"},
                "student": {"model": "m", "global_batch_size": batch},
                "teacher": {"model": "t"},
                "run": {"name": "toy"},
            }
        )
        return list(_updates(config, seeds, updates))

    found = lines(batch, updates)
    if updates < FEW_UPDATES:
        assert found
    if updates >= ENOUGH_UPDATES or (updates >= FEW_UPDATES and updates * min(batch, seeds) >= FEW_PASSES * seeds):
        assert not found
    for line in found:
        proposed = {name: int(value) for name, value in re.findall(r"student\.(\w+)=(\d+)", line)}
        assert lines(proposed.get("global_batch_size", batch), proposed["updates"]) == []


def test_classes_without_seeds_and_with_one(tmp_path: Path) -> None:
    seeds = [*rows(30, ("billing",), 0), {"text": "one alone", "label": "login"}]
    none, one = told(tmp_path, seeds=seeds, labels=("billing", "login", "refund"))
    assert none.startswith("No seed has the label refund: the first student never sees it.") and "task.options.labels" in none
    assert one.startswith("One seed only has the label login:")
    first, *_ = told(tmp_path, seeds=seeds[:30])
    assert first.startswith("All seeds have the label billing:")


def test_a_class_that_is_in_one_fold_only_is_told(tmp_path: Path) -> None:
    seeds = [*rows(30, ("billing",), 0), {"text": "one alone", "label": "login"}]
    *_, line = told(tmp_path, seeds=seeds, evaluation={"error_source": "cross_fit"})
    assert line.startswith("All seeds of the label login are in one fold")


def test_errors_from_dev_need_dev_rows_of_each_class(tmp_path: Path) -> None:
    (line,) = told(tmp_path, evaluation={"error_source": "dev"})
    assert line.startswith("No dev row has the label login: errors come from dev")
    assert told(tmp_path, evaluation={"error_source": "seed"}) == []


def test_rows_that_are_too_long_are_told_before_a_tokenizer_is_there(tmp_path: Path) -> None:
    long = {"text": "word " * 400, "label": "billing"}
    training, engine = told(
        tmp_path,
        seeds=[*rows(31, ("billing", "login"), 0), long],
        student={**GOOD, "max_length": 256, "engine": {"max_model_len": 256}},
    )
    assert training.startswith("About 1 of 32 seeds are longer than student.max_length=256 tokens")
    assert engine.startswith("About 1 of 72 rows leave no room for an answer in student.engine.max_model_len=256 tokens.")
    sizes = {
        name: int(value)
        for name, value in re.findall(r"student\.(max_length|engine\.max_model_len)=(\d+), or", training + engine)
    }
    assert sizes["max_length"] > 500 < sizes["engine.max_model_len"]
    fitting = {**GOOD, "max_length": sizes["max_length"], "engine": {"max_model_len": sizes["engine.max_model_len"]}}
    assert told(tmp_path, seeds=[*rows(31, ("billing", "login"), 0), long], student=fitting) == []


def test_a_teachers_context_and_a_teacher_that_is_the_student(tmp_path: Path) -> None:
    teacher = {"kind": "serve", "model": "m", "max_tokens": 512, "engine": {"max_model_len": 512}}
    context, same = told(tmp_path, teacher=teacher)
    assert "more than teacher.engine.max_model_len=512" in context
    assert same.startswith("The teacher is the student's own model (m)")
    assert told(tmp_path, teacher={**teacher, "model": "another", "engine": {"max_model_len": 1024}}) == []


@pytest.mark.parametrize(("size", "points"), [(4, 35), (29, 17)])
def test_a_small_test_set_says_how_little_it_tells(tmp_path: Path, size: int, points: int) -> None:
    (line,) = told(tmp_path, test=size)
    assert f"The test set has {size} rows" in line and f"within {points} points" in line
    assert told(tmp_path, test=size, evaluation={"test": False}) == []


def test_a_dry_run_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["llm2llm", "run", str(TWO_ENGINES), "--dry-run", "--set", "student.updates=12"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("Change first:") + 1].startswith("- Too few updates to learn from: the first student takes 12,")


def test_a_label_cannot_write_on_the_terminal() -> None:
    labels = ['"\\e[2Jx"', "refund", "billing", "cancel", "delivery", "login", "account", "bug", "feature"]
    config = load_config(TWO_ENGINES, [f"task.options.labels=[{', '.join(labels)}]"])
    stream = io.StringIO()
    render_plan(plan(config, check(config, JOBS)), Console(file=stream, width=200))
    assert "No seed has the label \\u001b[2Jx" in stream.getvalue() and "\x1b" not in stream.getvalue()
