"""The judge's role: which rows enough votes confirm, what becomes of the others, and that no vote is asked for in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_rows import augmented, solved

from llm2llm_ray.asking.request import Request
from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.config import RelabelConfig, TeacherConfig
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.rounds.blind_exam import shown_blind
from llm2llm_ray.rounds.judging import UNJUDGED, Judge, settled
from llm2llm_ray.rounds.rows import candidates_of
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Reply

TASK = Classification(labels={"billing": "charges", "account": "the profile"})
SEEDS = [Example(id=f"s-{n}", input=f"seed {n}", output=["billing", "account"][n % 2]) for n in range(8)]
TEXTS = ("Can I pay this by bank transfer?", "How do I rename myself?")


class Voters:
    """Answers by text and number of the vote: an answer, a Reply, or an error to raise."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.requests = answers, list[Request]()

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        said = self.answers[request.ordinal]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Reply):
            return said
        return Reply(text=said, finish_reason="stop", prompt_tokens=10, completion_tokens=2)


def error(reason: str) -> Reply:
    return Reply(text="", finish_reason="error", error=f"{reason}: why")


def judged(
    row: dict[str, Any], voters: Voters, *, task: Task = TASK, asked: TeacherConfig | None = None, **settings: Any
) -> dict[str, Any]:
    relabel = RelabelConfig(**{"votes": 3} | settings)
    judge = Judge(task, shown_blind(task, SEEDS, 1), settings=relabel, asked=asked or TeacherConfig(model="big"), run_seed=7)
    return asyncio.run(judge(row, voters))


def one(**other: Any) -> dict[str, Any]:
    return augmented("s-1", TEXTS[0], **other)


def reasons(row: dict[str, Any]) -> list[str]:
    return [item["reason"] for item in json.loads(row["rejected"])]


def verdicts(row: dict[str, Any]) -> list[str]:
    return [item["verdict"] for item in json.loads(row["votes"])]


@pytest.mark.parametrize(
    ("settings", "said", "verdict", "asked"),
    [
        ({}, ["billing", "Billing"], "confirmed", 2),
        ({}, ["account", "billing", "billing"], "confirmed", 3),
        ({}, ["account", "account"], "doubted", 2),
        ({}, ["It is billing", ""], "doubted", 2),
        ({"needed": 3}, ["account", "billing", "billing"], "doubted", 1 + 0),
        ({"needed": 3}, ["billing", "billing", "billing"], "confirmed", 3),
        ({"needed": 1}, ["billing"], "confirmed", 1),
        ({"needed": 1}, ["account", "account", "account"], "doubted", 3),
        ({"votes": 1}, ["account"], "doubted", 1),
        ({"votes": 4}, ["billing", "account", "billing", "account"], "doubted", 4),
        ({"votes": 5}, ["billing", "account", "billing", "account", "billing"], "confirmed", 5),
    ],
)
def test_asking_ends_when_the_outcome_is_settled(settings: dict[str, Any], said: list[str], verdict: str, asked: int) -> None:
    voters = Voters(*said)
    row = judged(one(), voters, **settings)
    assert (verdicts(row), row["judged"], len(voters.requests)) == ([verdict], asked, asked)
    assert (row["judge_prompt_tokens"], row["judge_completion_tokens"]) == (10 * asked, 2 * asked)
    assert [c.input for c in candidates_of(row)] == ([TEXTS[0]] if verdict == "confirmed" else [])
    assert reasons(row) == ([] if verdict == "confirmed" else ["relabelled"])
    assert row["judge_error"] == ""


@given(st.integers(1, 7), st.data())
def test_the_votes_asked_for_are_the_fewest_that_settle_it(votes: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, votes))
    said = data.draw(st.lists(st.sampled_from(["billing", "account", "?"]), min_size=votes, max_size=votes))
    voters = Voters(*said)
    row = judged(one(), voters, votes=votes, needed=needed)
    assert verdicts(row) == ["confirmed" if said.count("billing") >= needed else "doubted"]
    numbers = sorted(request.ordinal for request in voters.requests)
    assert numbers == list(range(len(numbers)))
    agreed = [word == "billing" for word in said[: len(numbers)]]
    for before in range(len(numbers)):
        rest = agreed[:before]
        assert not settled(sum(rest), len(rest) - sum(rest), votes=votes, needed=needed), "asked in vain"


def test_a_row_that_is_not_confirmed_says_what_was_voted() -> None:
    row = judged(one(rejected=["empty"]), Voters("account", "billing", "nonsense"))
    empty, told = json.loads(row["rejected"])
    assert empty["reason"] == "empty", "what was rejected before stays"
    assert told == {
        "reason": "relabelled", "detail": "1 of 3 votes; others: account 1, no answer 1", "text": TEXTS[0], "ordinal": 0,
        "attempt": 0,
    }  # fmt: skip
    (item,) = json.loads(row["votes"])
    assert [(vote["said"], vote["agrees"]) for vote in item["votes"]] == [("account", False), ("billing", True), (None, False)]


@pytest.mark.parametrize(("settings", "weight"), [({"on_doubt": "keep"}, 1.0), ({"on_doubt": "weight", "weight": 0.25}, 0.25)])
def test_a_row_in_doubt_may_be_kept_or_weigh_less(settings: dict[str, Any], weight: float) -> None:
    row = judged(one(), Voters("account", "account"), **settings)
    (kept,) = candidates_of(row)
    assert (kept.weight, reasons(row), verdicts(row)) == (weight, [], ["doubted"])
    (sure,) = candidates_of(judged(one(), Voters("billing", "billing"), **settings))
    assert sure.weight == 1.0


def test_each_candidate_of_a_row_has_votes_of_its_own() -> None:
    class ByText(Voters):
        async def __call__(self, request: Request) -> Reply:
            self.requests.append(request)
            right = TEXTS[0] in request.prompt.messages[-1].content
            return Reply(text="billing" if right else "account", finish_reason="stop")

    voters = ByText()
    row = judged(augmented("s-1", *TEXTS), voters)
    assert verdicts(row) == ["confirmed", "doubted"]
    assert [c.input for c in candidates_of(row)] == [TEXTS[0]]
    assert len({request.row_id for request in voters.requests}) == 2


def test_a_vote_sees_neither_the_label_nor_the_row_that_the_text_was_grown_from() -> None:
    other = augmented("s-9", TEXTS[0], output="account")
    ours, theirs = Voters("billing", "billing"), Voters("billing", "billing")
    judged(one(), ours)
    judged(other, theirs)
    assert ours.requests == theirs.requests, "the same text is the same request, whatever was asked for, and paid once"
    first, second = ours.requests
    assert first.sampling["seed"] != second.sampling["seed"], "each vote is another sample"
    assert not any("text of s-1" in message.content for message in first.prompt.messages)


def test_the_model_that_votes_is_asked_as_its_section_says() -> None:
    asked = TeacherConfig(model="big", style="completion", top_p=0.5, max_tokens=40)
    voters = Voters("billing", "billing")
    judged(one(), voters, asked=asked, temperature=0.3)
    request = voters.requests[0]
    assert request.prompt.text and not request.prompt.messages
    assert {k: v for k, v in request.sampling.items() if k != "seed"} == {"temperature": 0.3, "top_p": 0.5, "max_tokens": 40}
    merged = Voters("billing", "billing")
    judged(one(), merged, asked=TeacherConfig(model="big", system_message="merge"), max_tokens=9)
    assert [message.role for message in merged.requests[0].prompt.messages] == ["user"]
    assert merged.requests[0].sampling["max_tokens"] == 9


def test_the_last_line_of_a_vote_that_was_cut_is_no_answer() -> None:
    cut = [Reply(text=text, finish_reason="length") for text in ("billing", "billing\nsince it")]
    assert verdicts(judged(one(), Voters(cut[0], cut[0]))) == ["doubted"]
    assert verdicts(judged(one(), Voters(cut[1], cut[1]))) == ["confirmed"]


@pytest.mark.parametrize(
    ("answers", "verdict", "why", "stop"),
    [
        ([error("unavailable"), "billing"], "unheard", "unavailable", False),
        ([error("unavailable")] * 2, "unheard", "unavailable", False),
        ([error("prompt_too_long")] * 2, "unheard", "prompt_too_long", False),
        ([error("content_filter"), "billing", "billing"], "confirmed", "", False),
        ([error("content_filter"), "billing", "account"], "doubted", "", False),
        ([error("not_recorded"), "billing"], "unheard", "not_recorded", False),
        (["billing", error("not_recorded")], "unheard", "not_recorded", False),
        ([BudgetExhausted("calls"), "billing"], "unheard", "budget_exhausted", True),
        ([BudgetExhausted("calls"), error("unavailable")], "unheard", "unavailable", True),
    ],
)
@pytest.mark.parametrize("on_doubt", ["drop", "keep"])
def test_too_few_votes_are_no_verdict(answers: Sequence[Any], verdict: str, why: str, stop: bool, on_doubt: str) -> None:
    row = judged(one(), Voters(*answers), on_doubt=on_doubt)
    assert (verdicts(row), row["judge_error"], row["budget_stop"]) == ([verdict], why, stop)
    stays = verdict == "confirmed" or on_doubt == "keep"
    assert len(candidates_of(row)) == stays
    assert reasons(row) == ([] if stays else ["judge_error" if verdict == "unheard" else "relabelled"])


def test_what_passes_by_itself_is_not_asked_again_in_the_same_stream() -> None:
    voters = Voters(error("unavailable"), "billing", "billing")
    judged(one(), voters)
    assert len(voters.requests) == 2


@pytest.mark.parametrize("row", [solved("s-1"), solved("s-1", correct=False), augmented("s-1", rejected=["empty"])])
def test_rows_without_candidates_flow_past(row: dict[str, Any]) -> None:
    assert judged(row, Voters()) == row | UNJUDGED


def test_a_worked_answer_is_solved_again() -> None:
    row = augmented("s-1", "How many are 6 bags of 7?", output="6 * 7 = 42\n#### 42")
    right, wrong = "7 * 6 = 42.\n#### 42.0", "6 + 7 = 13\n#### 13"
    assert verdicts(judged(row, Voters(right, right), task=Gsm8k())) == ["confirmed"]
    doubted = judged(row, Voters(wrong, wrong), task=Gsm8k())
    assert reasons(doubted) == ["disagreed"] and "13 2" in doubted["rejected"]


def test_the_rows_shown_are_some_of_each_class_and_always_the_same() -> None:
    shown = shown_blind(TASK, SEEDS, 2)
    assert sorted(row.output for row in shown) == ["account"] * 2 + ["billing"] * 2
    assert shown == shown_blind(TASK, reversed(SEEDS), 2)
    assert shown_blind(TASK, SEEDS, 0) == []


@given(st.text(), st.text())
def test_any_text_and_any_vote_leave_a_row_that_can_be_stored(text: str, said: str) -> None:
    row = judged(augmented("s-1", text), Voters(said, said, said))
    for name in ("candidates", "rejected", "votes"):
        assert isinstance(json.loads(row[name].encode().decode()), list)
    assert all(isinstance(candidate, Candidate) for candidate in candidates_of(row))
