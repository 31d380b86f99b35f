"""The teacher's role in a stream: who is asked about, how often, and what is kept of every reply."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_rows import solved

from llm2llm_ray.asking.request import Request, sampling_seed
from llm2llm_ray.config import AugmentationConfig, TeacherConfig
from llm2llm_ray.config.schedule import rows_per_call
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.rounds.augmenting import ASKED, UNTOUCHED, Augment, Peers, graded
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Graded, Reply

TASK = Classification(labels=["billing", "account"])
SEEDS = [Example(id=f"s-{i}", input=f"Question number {i}?", output="billing" if i % 2 else "account") for i in range(12)]
GOOD = " Can I pay this by bank transfer?"
WRONG = {k: v for k, v in solved("s-1", correct=False, input=SEEDS[1].input).items() if k not in ASKED}


def said(text: str, finish_reason: str = "stop") -> Reply:
    return Reply(text=text, finish_reason=finish_reason, prompt_tokens=50, completion_tokens=10)


def failed(error: str) -> Reply:
    return Reply(text="", finish_reason="error", error=error)


class Teacher:
    """Says the next thing of a script; None stands for a budget that is used up."""

    def __init__(self, *script: Reply | None) -> None:
        self.script, self.requests = list(script), list[Request]()

    async def __call__(self, request: Request) -> Reply:
        reply = self.script.pop(0)
        if reply is None:
            raise BudgetExhausted("teacher.budget.calls")
        self.requests.append(request)
        return reply

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(request.ordinal, request.attempt) for request in self.requests]


def ask(
    teacher: Teacher, row: dict[str, Any] = WRONG, *, iteration: int = 0, run_seed: int = 7, **settings: Any
) -> dict[str, Any]:
    role = Augment(
        TASK, Peers(TASK, SEEDS), teacher=TeacherConfig(kind="scripted", model="t", style="completion"),
        settings=AugmentationConfig(**settings), iteration=iteration, run_seed=run_seed,
    )  # fmt: skip
    row = asyncio.run(role(dict(row), teacher))
    return row | {"candidates": json.loads(row["candidates"]), "rejected": json.loads(row["rejected"])}


def reasons(row: dict[str, Any]) -> list[str]:
    return [item["reason"] for item in row["rejected"]]


def test_a_wrong_row_gets_one_new_example_with_its_lineage() -> None:
    teacher = Teacher(said(GOOD))
    row = ask(teacher, iteration=2)
    (candidate,) = row["candidates"]
    assert (candidate["input"], candidate["output"]) == (GOOD.strip(), "billing")
    lineage = candidate["lineage"]
    assert (lineage["seed_id"], lineage["parent_id"], lineage["iteration"], lineage["ordinal"]) == ("s-1", "s-1", 2, 2)
    assert (lineage["wrong_answer"], lineage["teacher"]) == (WRONG["completion"], "scripted:t")
    assert lineage["prompt_sha"] == teacher.requests[0].prompt_sha
    assert lineage["sampling_seed"] == teacher.requests[0].sampling["seed"] == sampling_seed(7, "s-1", 2, 0)
    assert (row["asked"], row["teacher_prompt_tokens"], row["teacher_completion_tokens"]) == (1, 50, 10)
    assert row["asked_from"] <= row["asked_until"]
    assert set(row) == set(WRONG) | set(ASKED) and {name: row[name] for name in WRONG} == WRONG


def test_right_rows_and_rows_without_an_answer_are_not_asked_about() -> None:
    for untouched in (solved("s-1"), solved("s-1", correct=False, error="prompt_too_long")):
        row = {name: value for name, value in untouched.items() if name not in ASKED}
        teacher = Teacher()
        told = ask(teacher, row)
        assert teacher.requests == []
        assert told == row | UNTOUCHED | {"candidates": [], "rejected": []}


def test_it_is_tried_again_until_a_reply_passes() -> None:
    teacher = Teacher(said("   "), said(" " + WRONG["input"]), said(GOOD), said(GOOD))
    row = ask(teacher, attempts=4)
    assert teacher.places == [(0, 0), (0, 1), (0, 2)]
    assert row["candidates"][0]["lineage"]["attempt"] == 2
    assert reasons(row)[-1] == "copied_parent" and [item["attempt"] for item in row["rejected"]] == [0, 1]
    assert (row["asked"], row["teacher_prompt_tokens"]) == (3, 150)


def test_attempts_run_out() -> None:
    teacher = Teacher(*[said("  ")] * 9)
    row = ask(teacher, attempts=3, per_wrong=2)
    assert teacher.places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert row["candidates"] == [] and len(row["rejected"]) == 6


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_no_request_of_a_run_has_the_ordinal_of_another(per_wrong: int, iterations: int, per_call: int) -> None:
    ordinals = []
    for iteration in range(iterations):
        teacher = Teacher(*[said(GOOD)] * per_wrong)
        ask(teacher, iteration=iteration, per_wrong=per_wrong, per_call=per_call)
        ordinals += [request.ordinal for request in teacher.requests]
    assert ordinals == list(range(math.ceil(per_wrong / per_call) * iterations))


@given(st.integers(1, 40), st.integers(1, 12))
def test_the_calls_ask_for_what_is_wanted_and_the_last_for_what_is_left(per_wrong: int, per_call: int) -> None:
    counts = rows_per_call(per_wrong, per_call)
    assert sum(counts) == per_wrong and len(counts) == math.ceil(per_wrong / per_call)
    assert set(counts[:-1]) <= {per_call} and 1 <= counts[-1] <= per_call


def test_a_call_asks_for_several_rows_and_all_that_pass_become_candidates() -> None:
    """Five wanted, two a call; the list continues at 7: five peers and the wrong one stand before."""
    lines = [" Who pays?\n8. Is VAT in it?\n9. A third?", f" {WRONG['input']}\n8. Why twice?", " \n8. \n", " Is it due?\n8. Now?"]
    teacher = Teacher(*map(said, lines))
    row = ask(teacher, per_wrong=5, per_call=2, attempts=2, iteration=2)
    assert teacher.places == [(6, 0), (7, 0), (8, 0), (8, 1)]
    assert [len(request.prompt.stop) for request in teacher.requests] == [3, 3, 1, 1], "one line for the fifth"
    found = [(c["input"], c["lineage"]["ordinal"], c["index"]) for c in row["candidates"]]
    assert found == [("Who pays?", 6, 0), ("Is VAT in it?", 6, 1), ("Why twice?", 7, 1), ("Is it due?", 8, 0)]
    assert reasons(row) == ["copied_parent", "empty"] and row["asked"] == 4


def test_a_row_with_another_known_label_than_asked_is_a_candidate_that_is_counted() -> None:
    items = [{"text": "How do I close my account?", "label": "Account"}, {"text": "Is VAT in it?", "label": "billing"}]
    row = chat(items, per_wrong=3, per_call=3, attempts=1)
    assert [c["output"] for c in row["candidates"]] == ["account", "billing"]
    assert (row["other_group"], row["rejected"]) == (1, [])


def chat(items: list[dict[str, str]], **settings: Any) -> dict[str, Any]:
    role = Augment(
        TASK, Peers(TASK, SEEDS), teacher=TeacherConfig(kind="scripted", model="t", style="chat"),
        settings=AugmentationConfig(**settings), iteration=0, run_seed=0,
    )  # fmt: skip
    row = asyncio.run(role(dict(WRONG), Teacher(said(json.dumps({"examples": items})))))
    return row | {"candidates": json.loads(row["candidates"]), "rejected": json.loads(row["rejected"])}


@pytest.mark.parametrize(("answer", "count"), [("account", 2), ("billing", 0), (None, 0)])
def test_with_the_wrong_answer_come_real_rows_of_the_class_it_names(answer: str | None, count: int) -> None:
    def content(**settings: Any) -> str:
        role = Augment(
            TASK, Peers(TASK, SEEDS), teacher=TeacherConfig(kind="scripted", model="t", style="chat"),
            settings=AugmentationConfig(**settings), iteration=0, run_seed=7,
        )  # fmt: skip
        return role.request(replace(graded(WRONG), answer=answer, completion=" hm"), 0, 0).prompt.messages[-1].content

    others = [seed.input for seed in SEEDS if seed.output == "account"]
    assert sum(text in content(show_wrong_answer=True) for text in others) == count
    assert sum(text in content(show_wrong_answer=True, examples_of_confused=4) for text in others) == 2 * count
    assert sum(text in content() for text in others) == 0


def test_the_next_iteration_asks_for_another_sample_of_the_same_seed() -> None:
    requests = []
    for iteration in (0, 1):
        teacher = Teacher(said(GOOD))
        ask(teacher, iteration=iteration)
        requests += teacher.requests
    assert requests[0].sampling["seed"] != requests[1].sampling["seed"]


def test_a_used_up_budget_keeps_what_was_found_and_asks_no_more() -> None:
    teacher = Teacher(said(GOOD), said("  "), None, said(GOOD))
    row = ask(teacher, per_wrong=3)
    assert row["budget_stop"] is True and row["asked"] == 2
    assert [candidate["input"] for candidate in row["candidates"]] == [GOOD.strip()]
    assert len(row["rejected"]) == 1
    assert len(teacher.script) == 1


def test_a_refused_request_costs_one_attempt() -> None:
    teacher = Teacher(failed("content_filter"), said(GOOD))
    row = ask(teacher)
    assert row["teacher_error"] == "", "the teacher answered in the end"
    assert row["rejected"][0]["reason"] == "teacher_error" and row["rejected"][0]["detail"] == "content_filter"
    assert len(row["candidates"]) == 1 and row["asked"] == 2


def test_a_row_whose_requests_were_all_refused_says_why() -> None:
    row = ask(Teacher(failed("bad_request: HTTP 422: seed"), failed("content_filter")), attempts=2)
    assert (row["teacher_error"], row["asked"], row["candidates"]) == ("content_filter", 2, [])


def test_a_reply_without_a_usable_row_is_a_reply() -> None:
    row = ask(Teacher(failed("content_filter"), said("")), attempts=2)
    assert row["teacher_error"] == "" and row["candidates"] == []


@pytest.mark.parametrize(
    "before", [[], [said("")], [failed("content_filter")]], ids=["first", "after a reply", "after a refusal"]
)
def test_a_teacher_that_is_not_reached_ends_the_attempts_so_that_the_same_one_is_asked_later(before: list[Reply]) -> None:
    away = failed("unavailable: HTTP 503 (tried 9 times)")
    row = ask(Teacher(*before, away), attempts=3)
    assert (row["teacher_error"], row["asked"], row["candidates"]) == ("unavailable", len(before) + 1, [])
    later = Teacher(*before, said(GOOD))
    assert len(ask(later, attempts=3)["candidates"]) == 1 and later.places[-1] == (0, len(before))


def test_of_several_new_examples_the_one_that_was_not_reached_counts() -> None:
    away, refused = failed("unavailable: HTTP 503"), failed("content_filter")
    assert ask(Teacher(away, refused), per_wrong=2, attempts=1)["teacher_error"] == "unavailable"
    assert ask(Teacher(refused, away), per_wrong=2, attempts=1)["teacher_error"] == "unavailable"


def test_a_label_outside_the_set_in_a_chat_reply_is_a_rejection() -> None:
    row = chat([{"text": "Where is my parcel now?", "label": "delivery"}], attempts=1)
    assert reasons(row) == ["unknown_label"]


def test_a_teacher_without_a_system_role_is_asked_and_remembered_by_the_merged_prompt() -> None:
    def request(system_message: str) -> Request:
        teacher = TeacherConfig(kind="scripted", model="t", system_message=system_message)
        role = Augment(TASK, Peers(TASK, SEEDS), teacher=teacher, settings=AugmentationConfig(), iteration=0, run_seed=7)
        return role.request(graded(WRONG), 0, 0)

    kept, merged = request("keep"), request("merge")
    system, user = kept.prompt.messages
    assert [message.role for message in merged.prompt.messages] == ["user"]
    assert merged.prompt.messages[0].content == f"{system.content}\n\n{user.content}"
    assert merged.prompt_sha != kept.prompt_sha


def test_errors_on_augmented_rows_keep_the_seed_at_their_root() -> None:
    row = ask(Teacher(said(GOOD)), {**WRONG, "id": "a-77", "seed_id": "s-1"})
    lineage = row["candidates"][0]["lineage"]
    assert (lineage["seed_id"], lineage["parent_id"]) == ("s-1", "a-77")


def test_the_same_place_asks_the_same_question() -> None:
    """Nothing of a request may hang on state: a resumed run must find the stored reply."""
    first, second = Teacher(said("  "), said(GOOD)), Teacher(said("  "), said(GOOD))
    ask(first)
    ask(second)
    assert first.requests == second.requests
    assert first.requests[0].prompt != first.requests[1].prompt, "another attempt shows other examples"


@given(st.permutations(SEEDS), st.sampled_from(SEEDS), st.integers(0, 12), st.text())
def test_peers_are_of_the_same_class_never_the_mistake_and_hang_on_nothing_but_the_draw(
    order: Sequence[Example], mistake: Example, count: int, draw: str
) -> None:
    wrong = Graded(example=mistake, completion="", answer=None, correct=False)
    found = Peers(TASK, order).beside(wrong, count, draw)
    assert found == Peers(TASK, SEEDS).beside(wrong, count, draw)
    assert len({peer.id for peer in found}) == len(found) == min(count, 5)
    assert mistake.id not in {peer.id for peer in found}
    assert {peer.output for peer in found} <= {mistake.output}


def aimed(row: dict[str, Any], targets: set[str], teacher: Teacher, **settings: Any) -> dict[str, Any]:
    role = Augment(
        TASK, Peers(TASK, SEEDS), teacher=TeacherConfig(kind="scripted", model="t"), settings=AugmentationConfig(**settings),
        iteration=0, run_seed=7,
    )  # fmt: skip
    return asyncio.run(role.aimed_at(frozenset(targets))(dict(row), teacher))


def test_targets_are_asked_about_whether_they_are_right_or_wrong() -> None:
    right = {**WRONG, "correct": True, "completion": " billing", "answer": "billing"}
    found = json.dumps({"examples": [{"text": GOOD, "label": "billing"}]})
    for row in (right, WRONG):
        asked = aimed(row, {"s-1"}, Teacher(said(found)))
        assert asked["target"] and asked["asked"] == 1 and len(json.loads(asked["candidates"])) == 1
        assert aimed(row, {"s-2"}, Teacher()) == {**row, **UNTOUCHED}
    assert ask(Teacher(said(GOOD)))["target"] and not ask(Teacher(), right)["target"], "as usual: the wrong ones"


def _asked_with(task: Task, example: Example, correct: bool) -> Request:
    row = Graded(example=example, completion=task.completion(example.output), answer=None, correct=correct)
    role = Augment(
        task, Peers(task, []), teacher=TeacherConfig(kind="scripted", model="t"),
        settings=AugmentationConfig(show_wrong_answer=True), iteration=0, run_seed=7,
    )  # fmt: skip
    return role.request(row, 0, 0)


@pytest.mark.parametrize("task", [TASK, load_task("gsm8k", {}), load_task("casehold", {})], ids=["labels", "gsm8k", "casehold"])
def test_of_a_right_row_nobody_says_that_it_was_wrong(task: Task) -> None:
    """Nor shows its answer as a wrong one, whatever `show_wrong_answer` says."""
    example = {
        "Classification": Example(id="s-1", input="Where is it?", output="billing"),
        "Gsm8k": Example(id="s-1", input="What is 2 + 2?", output="2 + 2 = 4\n#### 4"),
        "CaseHold": Example(
            id="s-1", input="A court (<HOLDING>) said\n" + "\n".join(f"{c}: holding {c}" for c in "ABCDE"), output="A"
        ),
    }[type(task).__name__]
    of_right, of_wrong = [
        "\n".join(message.content for message in (prompt.messages[0], prompt.messages[-1]))
        for prompt in (_asked_with(task, example, correct).prompt for correct in (True, False))
    ]
    assert "has to be sure about" in of_right or "should learn from this" in of_right
    for phrase in (
        "got this",
        "the student got",
        "student wrote",
        "student's answer",
        "chose the wrong",
        "took it for",
        "missed",
    ):
        assert phrase not in of_right
    assert "got this" in of_wrong or "chose the wrong" in of_wrong
    assert example.input.split("\n")[0].split("(")[0] in of_right
