"""By what a row counts as weak: one greedy answer, a share of sampled ones, or what the right answer costs the student."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from llm2llm_ray.asking.request import Request
from llm2llm_ray.asking.scores import scores_of, written
from llm2llm_ray.config import Config
from llm2llm_ray.rounds.solving import SOLVED
from llm2llm_ray.rounds.weakness import student_role
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Reply

TASK = Classification(labels=["billing", "account"])
ROW = {"id": "s-1", "input": "Where do I change my card?", "output": "billing", "origin": "seed", "seed_id": None}


def config(**evaluation: Any) -> Config:
    tree = {
        "recipe": "paper",
        "task": {"name": "classification", "data": "d"},
        "student": {"model": "m"},
        "teacher": {"model": "m"},
    }
    return Config.model_validate({**tree, "evaluation": {"max_tokens": 8, **evaluation}, "run": {"name": "r", "seed": 3}})


def judged(
    answer: Callable[[Request], Reply], *, in_round: bool = True, **evaluation: Any
) -> tuple[dict[str, Any], list[Request]]:
    asked: list[Request] = []

    async def ask(request: Request) -> Reply:
        asked.append(request)
        return answer(request)

    row = asyncio.run(student_role(config(**evaluation), TASK, in_round=in_round)(dict(ROW), ask))
    assert set(row) == set(ROW) | set(SOLVED)
    return row, asked


def says(*texts: str) -> Callable[[Request], Reply]:
    """The n-th sample gets the n-th text."""
    return lambda request: Reply(text=texts[request.attempt], finish_reason="stop", prompt_tokens=5, completion_tokens=1)


@pytest.mark.parametrize(("text", "weakness"), [(" billing", 0.0), (" account", 1.0), (" no label", 1.0)])
def test_greedy_is_weak_or_not(text: str, weakness: float) -> None:
    row, asked = judged(says(text))
    assert (row["weakness"], row["correct"]) == (weakness, weakness == 0)
    assert [request.sampling["temperature"] for request in asked] == [0.0]


def test_the_share_of_wrong_samples_is_the_weakness_and_each_sample_is_a_request_of_its_own() -> None:
    row, asked = judged(says(" billing", " account", " no label", " account"), judge_by="pass_rate", samples=4)
    assert (row["weakness"], row["correct"], row["completion"], row["answer"]) == (0.75, False, " account", "account")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (20, 4)
    assert len({request.sampling["seed"] for request in asked}) == len({request.attempt for request in asked}) == 4
    assert {request.sampling["temperature"] for request in asked} == {0.7}
    again = judged(says(*[" billing"] * 4), judge_by="pass_rate", samples=4)[1]
    assert again == asked, "the same samples whenever they are asked for"


@pytest.mark.parametrize(("weak_below", "correct"), [(0.5, True), (0.51, False), (1.0, False)])
def test_the_row_shows_an_answer_that_is_as_right_as_the_row(weak_below: float, correct: bool) -> None:
    answers = says(" account", " billing", " billing", " no label")
    row, _ = judged(answers, judge_by="pass_rate", samples=4, weak_below=weak_below)
    assert (row["weakness"], row["correct"]) == (0.5, correct)
    assert row["completion"] == (" billing" if correct else " account"), "of equals, the first"


def test_a_sample_without_an_answer_leaves_the_row_unanswered() -> None:
    """Else the same row would have another pass rate when the run goes on."""

    def answer(request: Request) -> Reply:
        if request.attempt == 2:
            return Reply(text="", finish_reason="error", error="unavailable: nobody there")
        return Reply(text=" billing", finish_reason="stop")

    row, _ = judged(answer, judge_by="pass_rate", samples=4)
    assert (row["error"], row["error_detail"], row["correct"], row["weakness"]) == ("unavailable", "nobody there", False, None)


def weighed(request: Request) -> Reply:
    if "score" in request.sampling:
        return Reply(text=written([-3.0], [2]), finish_reason="stop", prompt_tokens=7)
    return Reply(text=" account", finish_reason="stop", prompt_tokens=5, completion_tokens=2)


def test_the_loss_of_the_gold_ranks_and_the_greedy_answer_judges() -> None:
    row, asked = judged(weighed, judge_by="gold_loss")
    assert (row["weakness"], row["correct"], row["completion"], row["prompt_tokens"]) == (1.5, False, " account", 12)
    (score,) = [request for request in asked if "score" in request.sampling]
    assert score.sampling == {"score": [" billing"]} and score.prompt.text == TASK.student_prompt(str(ROW["input"]))


@pytest.mark.parametrize("unanswered", ["score", "answer"])
def test_a_row_of_which_one_of_both_is_missing_is_unanswered(unanswered: str) -> None:
    def answer(request: Request) -> Reply:
        missing = ("score" in request.sampling) == (unanswered == "score")
        return Reply(text="", finish_reason="error", error="refused: no") if missing else weighed(request)

    row, _ = judged(answer, judge_by="gold_loss")
    assert (row["error"], row["weakness"], row["correct"]) == ("refused", None, False)


@pytest.mark.parametrize("judge_by", ["pass_rate", "gold_loss"])
def test_exams_are_greedy_whatever_rounds_judge_by(judge_by: str) -> None:
    row, asked = judged(says(" billing"), in_round=False, judge_by=judge_by)
    assert [request.sampling for request in asked] == [{"temperature": 0.0, "max_tokens": 8}] and row["weakness"] == 0


def test_samples_are_held_to_the_choices_too() -> None:
    _, asked = judged(says(" billing", " account"), judge_by="pass_rate", samples=2, structured=True)
    assert all(request.sampling["choice"] == [" billing", " account"] for request in asked)


def test_recorded_answers_have_no_probabilities() -> None:
    with pytest.raises(ValidationError, match=r"gold_loss asks an engine .* remove recorded_answers"):
        config(judge_by="gold_loss", recorded_answers="a.jsonl")


def test_a_score_survives_its_storage() -> None:
    scores = scores_of(Reply(text=written([-0.1 - 0.2, -7.0], [1, 3]), finish_reason="stop"))
    assert [(score.log_prob, score.tokens) for score in scores] == [(-0.1 - 0.2, 1), (-7.0, 3)] and scores[1].loss == 7 / 3
