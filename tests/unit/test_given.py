"""`teacher.kind: rows`: new rows out of a file, through the gates, with nobody asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from finished_run import config

from llm2llm_ray.asking.request import Request
from llm2llm_ray.augmentation.commit import Admitted, CommitGates
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.given import Given, check_given, read_given
from llm2llm_ray.rounds.rows import candidates_of
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Draft, Example, Reply

TASK = Classification(labels=["billing", "account"])
ROWS = {"s-1": [Draft(input=f"How much is plan {n}?", output="billing") for n in range(4)]}


def row(row_id: str = "s-1", *, correct: bool = False) -> dict[str, Any]:
    return {
        "id": row_id, "input": "Where do I change my card?", "output": "billing", "origin": "seed", "seed_id": None,
        "completion": " account", "answer": "account", "correct": correct, "truncated": False, "error": "",
    }  # fmt: skip


async def nobody(request: Request) -> Reply:
    raise AssertionError("asked")


def answered(role: Given, given: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(role(given, nobody))


def role(iteration: int = 0, rows: Any = None, **settings: Any) -> Given:
    return Given(TASK, rows or ROWS, file="a/b/eda.jsonl", settings=AugmentationConfig(**settings), iteration=iteration)


def test_a_wrong_row_gets_its_next_rows_in_each_round() -> None:
    texts = [[c.input for c in candidates_of(answered(role(n, per_wrong=3), row()))] for n in (0, 1)]
    assert texts == [[f"How much is plan {n}?" for n in (0, 1, 2)], ["How much is plan 3?"]]
    line = candidates_of(answered(role(1, per_wrong=3), row()))[0].lineage
    assert (line.seed_id, line.ordinal, line.teacher, line.wrong_answer) == ("s-1", 3, "rows:eda.jsonl", " account")


def test_right_rows_flow_past_unless_they_are_targets() -> None:
    assert answered(role(), row(correct=True))["asked"] == 0
    assert answered(role().aimed_at(frozenset({"s-1"})), row(correct=True))["asked"] == 1
    assert answered(role().aimed_at(frozenset({"s-2"})), row())["asked"] == 0
    assert candidates_of(answered(role(), row("s-9"))) == []


def test_copies_pass_where_the_config_lets_them() -> None:
    seed = Example(id="s-1", input="Where do I change my card?", output="billing")
    copies = {"s-1": [Draft(input=seed.input, output="billing")] * 2}
    refused = answered(role(rows=copies, per_wrong=2), row())
    assert [item["reason"] for item in json.loads(refused["rejected"])] == ["copied_parent"] * 2
    settings = AugmentationConfig(per_wrong=2, copies=True)
    found = candidates_of(answered(Given(TASK, copies, file="f", settings=settings, iteration=0), row()))
    gates = CommitGates([seed], HeldOut([], settings.near_test), settings, lambda output: output)
    verdicts = list(gates.admit(found))
    assert [type(verdict) for verdict in verdicts] == [Admitted, Admitted]
    assert len({verdict.example.id for verdict in verdicts if isinstance(verdict, Admitted)}) == 2


def test_mistakes_in_the_file_are_told_with_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for line, told in (
        ("", "no rows in it"),
        ("{", r"rows.jsonl:1: not valid JSON"),
        ('{"seed": "s-1", "text": "x"}', "expected an object with the fields seed, input, output"),
        ('{"seed": "s-1", "input": 3, "output": "x"}', "rows.jsonl:1: input: expected text, found 3"),
    ):
        file.write_text(line)
        with pytest.raises(UserError, match=told):
            read_given(str(file))
    file.write_text('{"seed": "s-7", "input": "a", "output": "b"}')
    assert read_given(str(file)) == {"s-7": [Draft(input="a", output="b")]}
    with pytest.raises(UserError, match="none for any of the 1 rows"):
        check_given(str(file), ["s-1"])
    with pytest.raises(UserError, match="cannot be read"):
        read_given(str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    "asked",
    [{"evaluation": {"teacher_on_test": True}}, {"evaluation": {"check_teacher": True}}, {"gates": {"relabel": {"votes": 1}}}],
)
def test_a_file_of_rows_answers_nothing(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"teacher.kind: rows is a file of rows, which answers nothing; turn off"):
        config(teacher={"kind": "rows", "model": "rows.jsonl"}, **asked)
