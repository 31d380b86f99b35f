"""The student's role: what it is asked, and what a reply of each kind becomes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from stream_rows import write_rows

from llm2llm_ray.asking.no_answer import NO_BUDGET
from llm2llm_ray.asking.request import Request
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.rounds.augmenting import UNTOUCHED
from llm2llm_ray.rounds.rows import tally
from llm2llm_ray.rounds.solving import SOLVED, Solve
from llm2llm_ray.storage.files import Files
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Reply

TASK = Classification(labels=["billing", "account"])
ROW = {"id": "s-1", "input": "Where do I change my card?", "output": "billing", "origin": "seed", "seed_id": None}


def solve(reply: Reply, **options: Any) -> tuple[dict[str, Any], Request]:
    asked: list[Request] = []

    async def ask(request: Request) -> Reply:
        asked.append(request)
        return reply

    row = asyncio.run(Solve(TASK, max_tokens=8, **options)(dict(ROW), ask))
    (request,) = asked
    return row, request


def test_a_row_is_asked_greedily_with_the_prompt_of_training() -> None:
    _, request = solve(Reply(text=" billing", finish_reason="stop"))
    assert request.prompt.text == TASK.student_prompt(ROW["input"]) and not request.prompt.messages
    assert request.sampling == {"temperature": 0.0, "max_tokens": 8}
    assert (request.row_id, request.ordinal, request.attempt) == ("s-1", 0, 0)


def test_answers_are_graded_and_the_row_keeps_its_own_columns() -> None:
    reply = Reply(text=" Billing.", finish_reason="stop", prompt_tokens=9, completion_tokens=2, replica="r", weights_sha="w")
    row, _ = solve(reply)
    assert {name: row[name] for name in ROW} == ROW
    assert set(row) == set(ROW) | set(SOLVED)
    assert (row["correct"], row["answer"], row["completion"], row["error"]) == (True, "billing", " Billing.", "")
    assert (row["prompt_tokens"], row["completion_tokens"], row["replica"], row["weights_sha"]) == (9, 2, "r", "w")
    assert row["solved_from"] <= row["solved_until"]


def test_a_wrong_answer_and_no_answer_are_both_wrong() -> None:
    wrong, _ = solve(Reply(text=" account", finish_reason="stop"))
    assert (wrong["correct"], wrong["answer"]) == (False, "account")
    none, _ = solve(Reply(text=" I would say billing", finish_reason="stop"))
    assert (none["correct"], none["answer"]) == (False, None)


def test_a_cut_answer_is_counted() -> None:
    row, _ = solve(Reply(text=" the intent is", finish_reason="length"))
    assert row["truncated"] and not row["correct"]


def test_a_row_that_cannot_be_answered_has_a_reason_and_no_answer() -> None:
    row, _ = solve(Reply(text="", finish_reason="error", error="prompt_too_long: 900 tokens, 256 fit"))
    assert (row["error"], row["correct"], row["answer"], row["truncated"]) == ("prompt_too_long", False, None, False)
    assert row["error_detail"] == "900 tokens, 256 fit"


def test_what_solving_adds_is_what_a_round_counts_by(tmp_path: Path) -> None:
    """Rows as the role itself makes them, written and read back: one right, one wrong, one cut, one without an answer."""
    replies = [
        Reply(text=" billing", finish_reason="stop", prompt_tokens=9, completion_tokens=2),
        Reply(text=" account", finish_reason="stop", prompt_tokens=9, completion_tokens=1),
        Reply(text=" the intent is", finish_reason="length", prompt_tokens=9, completion_tokens=8),
        Reply(text="", finish_reason="error", error="prompt_too_long: 900 tokens, 256 fit"),
    ]
    files = Files(str(tmp_path / "run"))
    write_rows(files, "rounds/r", [{**UNTOUCHED, **solve(reply)[0], "id": f"s-{n}"} for n, reply in enumerate(replies)])
    found = tally(files, "rounds/r")
    assert (found["evaluated"], found["wrong"], found["truncated"], found["student_tokens"]) == (4, 2, 1, 9 + 2 + 9 + 1 + 9 + 8)
    assert found["errors"] == {"prompt_too_long": 1}


def test_a_teacher_without_budget_leaves_the_row_unanswered_and_says_why() -> None:
    async def ask(request: Request) -> Reply:
        raise BudgetExhausted("teacher.budget.calls: 1 is used up")

    row = asyncio.run(Solve(TASK, max_tokens=8)(dict(ROW), ask))
    assert (row["error"], row["correct"], row["answer"]) == (NO_BUDGET, False, None)
    assert set(SOLVED) <= row.keys()


def test_a_student_that_is_held_to_choices_is_asked_with_them_where_the_task_has_them() -> None:
    _, request = solve(Reply(text=" billing", finish_reason="stop"), structured=True)
    assert request.sampling == {"temperature": 0.0, "max_tokens": 8, "choice": [" billing", " account"]}
    assert "choice" not in request.asked_with, "a service is not held to them"
    open_ended = Solve(load_task("gsm8k", {}), max_tokens=8, structured=True).request("s-1", "What is 2 + 2?")
    assert open_ended.sampling == {"temperature": 0.0, "max_tokens": 8}
