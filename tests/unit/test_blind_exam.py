"""The teacher's own exam: asked as a judge is, and its reply read as a vote is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import Config
from llm2llm_ray.rounds.blind_exam import blind_exam, shown_blind
from llm2llm_ray.rounds.judging import Judge
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example, Reply

TASK = Classification(labels={"billing": "prices and invoices", "account": "the profile"})
SEEDS = [Example(id=f"s-{n}", input=f"Text {n}", output=("billing", "account")[n % 2]) for n in range(6)]
ROW = {"id": "t-1", "input": "Where is my invoice?", "output": "billing"}


def config(**sections: Any) -> Config:
    given = {
        "task": {"name": "classification", "data": "d"}, "student": {"model": "m"}, "teacher": {"model": "t", "max_tokens": 9},
        "run": {"name": "r"},
    }  # fmt: skip
    return Config.model_validate(
        {"recipe": "paper"} | {name: {**given.get(name, {}), **sections.get(name, {})} for name in {*given, *sections}}
    )


def examined(reply: Reply, settings: Config) -> tuple[dict[str, Any], Request]:
    asked: list[Request] = []

    async def ask(request: Request) -> Reply:
        asked.append(request)
        return reply

    row = asyncio.run(blind_exam(settings, TASK, SEEDS)(dict(ROW), ask))
    return row, asked[0]


@pytest.mark.parametrize(
    ("text", "finish", "answer", "correct"),
    [
        ("billing", "stop", "billing", True),
        ("**Label: billing**", "stop", "billing", True),
        ("account", "stop", "account", False),
        ("I would say billing here", "stop", None, False),
        ("billing\nacc", "length", "billing", True),  # the last line of a cut reply may be half of another answer
        ("bill", "length", None, False),
    ],
)
def test_a_reply_is_read_as_a_vote_is(text: str, finish: str, answer: str | None, correct: bool) -> None:
    row, _ = examined(Reply(text=text, finish_reason=finish), config())
    assert (row["answer"], row["correct"], row["error"]) == (answer, correct, "")


def test_it_is_asked_in_the_words_of_a_vote_and_greedily() -> None:
    settings = config(gates={"relabel": {"votes": 3, "examples": 1}})
    _, request = examined(Reply(text="billing", finish_reason="stop"), settings)
    shown = shown_blind(TASK, SEEDS, 1)
    vote = Judge(TASK, shown, settings=settings.gates.relabel, asked=settings.voter, run_seed=0).request(ROW["input"], 0)
    assert request.prompt == vote.prompt and request.sampling == {"temperature": 0.0, "max_tokens": 9}


def test_who_gave_no_reply_has_no_answer() -> None:
    row, _ = examined(Reply(text="", finish_reason="error", error="unavailable: nobody there"), config())
    assert (row["answer"], row["correct"], row["error"], row["weakness"]) == (None, False, "unavailable", None)
