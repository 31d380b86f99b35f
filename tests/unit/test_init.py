"""`llm2llm init`: what it writes is a config that a run takes, it asks what a file does not settle, and overwrites nothing."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_files import FILES, ids_and_contradictions, requests, semicolons, table

from llm2llm_ray.cli import main
from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.machine import this_machine
from llm2llm_ray.preflight import check
from llm2llm_ray.starting.cleaning import Read
from llm2llm_ray.starting.config_text import Written, config_text
from llm2llm_ray.tasks.classification import Classification

Told = tuple[int, str, str]
Call = Callable[..., Told]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`llm2llm init` in a folder of its own, without a terminal: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    roomy = replace(this_machine(), memory_gib=64.0, available_gib=64.0)  # what others hold here is told on stderr
    monkeypatch.setattr("llm2llm_ray.planning.plan.this_machine", lambda: roomy)

    def called(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["llm2llm", "init", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return called


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("make", FILES, ids=lambda make: str(make.__name__))
def test_a_file_as_people_have_it_becomes_a_run_without_a_question(
    call: Call, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    code, out, err = call(path.name)
    assert (code, err) == (0, "")
    (config_file,) = tmp_path.glob("*.yaml")
    config = load_config(config_file)
    checked = check(config, tmp_path)
    assert checked.notices() == []
    assert len(checked.splits.test) >= 28 <= len(checked.splits.seed) and len(checked.splits.dev) >= 10
    assert {row.output for row in checked.splits.seed} == {row.output for row in checked.splits.test}
    assert "Too few updates" not in out and "Time: about" in out and f"llm2llm run {config_file.name}" in out


def test_what_is_left_out_is_told_by_line_and_kept_beside(call: Call, tmp_path: Path) -> None:
    path = ids_and_contradictions(tmp_path)
    code, out, _ = call(path.name)
    assert code == 0 and "Left out: 6 rows stand with two labels; correct the file" in out
    assert "on line 12 of ids.csv, but '" in out and "on line 98 of ids.csv" in out
    assert "ticket_id: the id: every row has its own" in out and "ticket: not used: 'open' in every row" in out
    left = lines(tmp_path / "ids-data" / "left_out.jsonl")
    assert sorted(row["line"] for row in left) == [12, 13, 14, 98, 99, 100]
    kept = [row for role in ("seed", "dev", "test") for row in lines(tmp_path / "ids-data" / f"{role}.jsonl")]
    assert len(kept) == 93 and {row["id"] for row in kept}.isdisjoint(row["id"] for row in left)
    assert set(kept[0]) == {"id", "body", "queue", "line"}


def test_nothing_is_overwritten_without_force(call: Call, tmp_path: Path) -> None:
    path = semicolons(tmp_path)
    assert call(path.name)[0] == 0
    written = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    code, out, err = call(path.name)
    assert (code, out) == (2, "") and err.startswith(
        "error: semicolons.yaml: is there already (and 3 more): give another --name, or --force"
    )
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()} == written
    assert call(path.name, "--name", "another")[0] == 0
    assert call(path.name, "--force", "--dev-rows", "0", "--split-seed", "1")[0] == 0
    assert not (tmp_path / "semicolons-data" / "dev.jsonl").exists(), "left over from the call before"
    assert (tmp_path / "semicolons-data" / "test.jsonl").read_bytes() != written[tmp_path / "semicolons-data" / "test.jsonl"]
    code, _, err = call("semicolons-data/seed.jsonl", "--name", "semicolons", "--force")
    assert code == 2 and "is the file that is read, and would be overwritten" in err


def test_what_is_not_certain_is_an_error_with_its_flag_where_nobody_can_be_asked(call: Call, tmp_path: Path) -> None:
    pairs = requests()
    rows = [(text, label, "low" if n % 3 else "high") for n, (text, label) in enumerate(pairs)]
    (tmp_path / "two.csv").write_text(table(["said", "team", "urgency"], rows), newline="")
    code, out, err = call("two.csv")
    assert (code, out) == (2, "") and not list(tmp_path.glob("*.yaml"))
    assert err.startswith("error: Which column is the label? Not certain between team: 3 values in 96 rows")
    assert err.rstrip().endswith("Name it with --label COLUMN")
    assert call("two.csv", "--label", "urgency")[0] == 0
    assert {row["urgency"] for row in lines(tmp_path / "two-data" / "seed.jsonl")} == {"low", "high"}


def test_on_a_terminal_it_is_asked_by_number_or_name(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    rows = [(text, text[::-1], label, "low" if n % 3 else "high") for n, (text, label) in enumerate(requests())]
    (tmp_path / "two.csv").write_text(table(["said", "answered", "team", "urgency"], rows), newline="")
    monkeypatch.setattr(sys, "stdin", Terminal("7\nnone\n2\nsaid\n"))
    code, out, err = call("two.csv")
    assert code == 0 and "urgency: the label: chosen;" in out and "said: the text: chosen;" in out
    assert "Which column is the label?\n  1. team: 3 values in 96 rows" in err and err.count("Which column") == 2


def test_given_dev_and_test_files_are_taken_and_their_rows_kept_out_of_the_seeds(call: Call, tmp_path: Path) -> None:
    pairs = requests(60)
    for name, part in (("all", pairs), ("held", [*pairs[:10], ("A question of its own, nowhere else", "login")])):
        (tmp_path / f"{name}.csv").write_text(table(["text", "label"], part), newline="")
    code, out, _ = call("all.csv", "--test", "held.csv")
    assert code == 0 and "Left out: 10 rows repeat another row:" in out and "as line 2 of held.csv" in out
    assert [row["line"] for row in lines(tmp_path / "all-data" / "test.jsonl")] == list(range(2, 13))
    assert len(lines(tmp_path / "all-data" / "seed.jsonl")) + len(lines(tmp_path / "all-data" / "dev.jsonl")) == 50
    for arguments, said in (
        (("--test", "held.csv", "--test-rows", "3"), "--test names the rows, --test-rows splits some off"),
        (("--test-rows", "31"), "--test-rows 31: all.csv has 60 usable rows: 0 to half of them"),
        (("--test", "no.csv"), "no.csv: no such file"),
        (("--name", "Über"), "--name Über: small letters"),
    ):
        code, _, err = call("all.csv", "--force", *arguments)
        assert code == 2 and said in err


def test_without_test_rows_the_run_has_no_final_accuracy(call: Call, tmp_path: Path) -> None:
    (tmp_path / "Anfragen März.csv").write_text(table(["text", "label"], requests(40)), newline="")
    assert call("Anfragen März.csv", "--test-rows", "0")[0] == 0
    config = load_config(tmp_path / "anfragen-marz.yaml")
    assert (config.evaluation.test, config.task.test, config.run.name) == (False, None, "anfragen-marz")


def test_worked_answers_become_a_gsm8k_run(call: Call, tmp_path: Path) -> None:
    rows = [
        (n, f"{text}: how many are there?", f"There are {n} and 1.\n#### {n + 1}") for n, (text, _) in enumerate(requests(60))
    ]
    (tmp_path / "sums.csv").write_text(table(["id", "problem", "solution"], rows), newline="")
    code, out, _ = call("sums.csv")
    assert code == 0 and "solution: the answer: " in out and "problem: the question: " in out
    config = load_config(tmp_path / "sums.yaml")
    assert (config.task.name, config.task.columns) == ("gsm8k", {"question": "problem", "answer": "solution"})
    assert check(config, tmp_path).task.is_correct(rows[3][2], rows[3][2])


def test_columns_called_as_ours_are_written_under_the_fields_names(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table(["line", "text"], requests(40)), newline="")
    assert call("a.csv")[0] == 0
    assert load_config(tmp_path / "a.yaml").task.columns == {}
    assert set(lines(tmp_path / "a-data" / "seed.jsonl")[0]) == {"text", "label", "line"}


@pytest.mark.parametrize(("seeds", "updates"), [(20, "auto"), (100, "auto"), (1000, "400"), (10_000, "3750")])
def test_a_large_file_is_not_trained_on_for_days(seeds: int, updates: str) -> None:
    rows = {"seed": [Read("rows", "a", 2, "a text", "ab"[n % 2]) for n in range(seeds)]}
    task = Classification(labels=["a", "b"])
    text = config_text(Written(name="a", source="a", task=task, task_name="classification", columns={}, files={}, rows=rows))
    assert f"\n  updates: {updates}  #" in text and ("# seeds_per_class: 20" in text) == (seeds > 500)


@pytest.mark.parametrize(("number", "kind"), [(2, "openai"), (3, "recorded"), (4, "scripted")])
def test_the_other_teachers_in_its_comments_are_teachers(call: Call, tmp_path: Path, number: int, kind: str) -> None:
    assert call(semicolons(tmp_path).name)[0] == 0
    path = tmp_path / "semicolons.yaml"
    text = path.read_text().splitlines()
    (first,) = [at for at, line in enumerate(text) if line == "teacher:"]
    begins = [at for at, line in enumerate(text) if line.startswith(("# 2.", "# 3.", "# 4."))] + [text.index("evaluation:")]
    block = [line.removeprefix("# ") for line in text[begins[number - 2] + 1 : begins[number - 1]]]
    path.write_text("\n".join([*text[:first], *block, *text[begins[-1] :]]))
    assert load_config(path).teacher.kind == kind


def test_what_a_file_says_is_shown_and_not_obeyed(call: Call, tmp_path: Path) -> None:
    rows = [*requests(40), ("a \x1b[2J text\x1b]0;x", "billing"), ("a \x1b[2J text\x1b]0;x", "login")]
    (tmp_path / "a.csv").write_text(table(["te\x1bxt", "label"], rows), newline="")
    code, out, err = call("a.csv", "--text", "te\x1bxt")
    assert code == 0 and "\x1b" not in out + err and "a \\u001b[2J text" in out
    assert load_config(tmp_path / "a.yaml").task.columns == {"text": "te\x1bxt"}


def test_a_place_that_cannot_be_written_is_told(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a-data").write_text("a file of that name")
    (tmp_path / "a.csv").write_text(table(["text", "label"], requests(40)), newline="")
    code, out, err = call("a.csv")
    assert (code, out) == (2, "") and err.startswith("error: a-data: cannot be written (")


WORDS = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() and text.strip() == text)


@given(
    names=st.lists(WORDS, min_size=2, max_size=2, unique=True),
    labels=st.lists(
        st.one_of(WORDS, st.sampled_from(["yes", "null", "0", "1.5", "a: b", "# c", "- d", "{", "2026-01-01", "~"])),
        min_size=2,
        unique=True,
    ),
    source=st.text(max_size=20),
    words=st.integers(1, 3000),
)
def test_the_yaml_reads_back_what_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], labels: list[str], source: str, words: int
) -> None:
    try:
        task = Classification(labels=labels, item="text", question="Label")
    except ValueError:
        return  # labels that the grader could not tell apart
    rows: Mapping[str, list[Read]] = {"seed": [Read("rows", "a", 2, "word " * words, label) for label in task.labels]}
    columns = {"text": names[0], "label": names[1]}
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(
        config_text(
            Written(
                name="a",
                source=source,
                task=task,
                task_name="classification",
                columns=columns,
                files={"seed": "a.jsonl"},
                rows=rows,
            )
        ),
        encoding="utf-8",
    )
    config = load_config(path)
    assert isinstance(config, Config) and config.task.columns == columns
    assert tuple(config.task.options["labels"]) == task.labels
    assert config.teacher.engine.max_model_len <= 8192 >= config.student.max_length
