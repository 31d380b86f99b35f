"""A round or an exam with too many rows without an answer: not recorded, one message, and whose fault it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stream_rows import Stream, augmented, judged, solved
from test_versioning import SEEDS, TASK

from llm2llm_ray.asking.no_answer import NO_BUDGET, NOT_RECORDED, is_kept
from llm2llm_ray.config import AugmentationConfig, MaxUnanswered
from llm2llm_ray.errors import TemporaryFailure, UserError
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import StageRecords

Rows = Sequence[dict[str, Any]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path / "run"))


def versions(files: Files, **limits: float) -> RecordedVersions:
    return RecordedVersions(
        files, TASK, lambda: SEEDS, lambda: (), (), AugmentationConfig(), max_unanswered=MaxUnanswered(**limits)
    )


def recorded(files: Files) -> list[str]:
    return [record["name"] for record in StageRecords(files).all()]


def student(count: int, error: str = "", detail: str = "") -> Rows:
    return [solved(f"{error or 'right'}-{n}", correct=not error, error=error, error_detail=detail) for n in range(count)]


def teacher(count: int, error: str = "", detail: str = "") -> Rows:
    """Wrong rows that the teacher was asked about."""
    said = [{"reason": "teacher_error", "detail": f"{error}: {detail}", "text": "", "ordinal": 0, "attempt": 0}] if error else []
    return [augmented(f"asked-{error}-{n}", teacher_error=error) | {"rejected": json.dumps(said)} for n in range(count)]


def test_a_teacher_that_was_not_reached_leaves_the_round_open_and_the_same_command_goes_on(files: Files) -> None:
    told = versions(files)
    with pytest.raises(TemporaryFailure) as stopped:
        told.extend(told.seed(), Stream(files, [*teacher(9), *teacher(1, "unavailable", "HTTP 503: busy (tried 9 times)")]))
    message = str(stopped.value)
    assert message.startswith(
        "iteration 1, round: 1 of 10 rows got nothing from the teacher: 1 unavailable (HTTP 503: busy (tried 9 times))."
    )
    assert "What was answered is kept, and the same command goes on" in message
    assert recorded(files) == []

    again = Stream(files, teacher(10))
    _, outcome = told.extend(told.seed(), again)
    assert again.folders, "the round was drained again"
    assert (outcome.evaluated, outcome.asked) == (10, 10) and recorded(files) == ["round", "commit"]


@pytest.mark.parametrize(
    ("missing", "of", "limits", "stops"),
    [
        ("unavailable", (1, 100), {}, True),
        ("unavailable", (0, 100), {}, False),
        ("unavailable", (10, 100), {"passing": 0.1}, False),
        ("unavailable", (11, 100), {"passing": 0.1}, True),
        ("prompt_too_long", (1, 20), {}, False),  # 5 %
        ("prompt_too_long", (2, 20), {}, True),
        ("content_filter", (3, 60), {}, False),  # 5 %
        ("content_filter", (4, 60), {}, True),
        ("refused", (1, 100), {"refused": 0.0}, True),
        ("refused", (50, 100), {"refused": 0.5}, False),
    ],
)
@pytest.mark.parametrize("who", ["student", "teacher", "exam"])
def test_what_passes_by_itself_and_what_is_refused_have_limits_of_their_own(
    files: Files, who: str, missing: str, of: tuple[int, int], limits: dict[str, float], stops: bool
) -> None:
    lost, total = of
    rows = teacher if who == "teacher" else student
    told, stream = versions(files, **limits), Stream(files, [*rows(total - lost), *rows(lost, missing)], rows_per_file=64)
    name = "exam" if who == "exam" else "round"
    if stops:
        with pytest.raises((UserError, TemporaryFailure)) as stopped:
            told.drained(stream, name)
        assert f"{lost} of {total} rows" in str(stopped.value) and f"{lost} {missing}" in str(stopped.value)
        assert type(stopped.value) is (TemporaryFailure if missing == "unavailable" else UserError)
        assert recorded(files) == []
    else:
        result = told.drained(stream, name)["result"]
        assert result["teacher_errors" if who == "teacher" else "errors"] == ({missing: lost} if lost else {})
        assert recorded(files) == [name]


def test_refused_rows_are_named_with_reasons_words_and_remedies(files: Files) -> None:
    rows = [
        *student(6), *student(2, "prompt_too_long", "1104 tokens do not fit 1024"), *student(1, "refused", "odd"),
        *student(1, "unavailable", "HTTP 503"),
    ]  # fmt: skip
    with pytest.raises(UserError) as stopped:
        versions(files).drained(Stream(files, rows), "exam", "exam (first)")
    message = str(stopped.value)
    assert message.startswith("exam (first): 4 of 10 rows have no answer: ")
    for part in (
        "2 prompt_too_long (1104 tokens do not fit 1024)", "1 refused (odd)", "1 unavailable (HTTP 503)", "max_model_len",
        "evaluation.max_unanswered.refused (a share of the rows, now 0.05)", "the same command goes on",
    ):  # fmt: skip
        assert part in message


def test_the_words_said_most_often_stand_for_a_reason(files: Files) -> None:
    rows = [*student(2, "unavailable", "HTTP 503"), *student(1, "unavailable", "no answer within 120 s")]
    with pytest.raises(TemporaryFailure, match=r"3 unavailable \(HTTP 503\)\."):
        versions(files).drained(Stream(files, rows))


def test_a_file_of_replies_without_votes_is_told_and_one_that_lacks_some_is_not(files: Files) -> None:
    some = judged(augmented("s-0", "a"), "confirmed", said=["billing"])
    none = [
        judged(augmented(f"s-{n}", "b"), "unheard", said=["not_recorded: in r.jsonl"], judge_error=NOT_RECORDED) for n in (1, 2)
    ]
    with pytest.raises(UserError, match=r"too few votes on new rows for each of the 2 rows.*gates\.relabel\.votes=0"):
        versions(files).drained(Stream(files, none))
    assert recorded(files) == []
    record = versions(files).drained(Stream(files, [some, *none]))
    assert record["result"]["judge_errors"] == {NOT_RECORDED: 2}


@pytest.mark.parametrize(("error", "kind"), [("unavailable: HTTP 503", TemporaryFailure), ("prompt_too_long: 900", UserError)])
def test_rows_that_too_few_votes_could_be_had_for_leave_the_round_open(files: Files, error: str, kind: type[Exception]) -> None:
    reason, _, words = error.partition(": ")
    rows = [
        *(judged(augmented(f"s-{n}", "a"), "confirmed", said=["billing"]) for n in range(9)),
        judged(augmented("s-9", "b"), "unheard", said=[error], judge_error=reason),
    ]
    with pytest.raises(kind, match=rf"1 of 10 rows that votes were asked for got too few: 1 {reason} \({words}\)"):
        versions(files).drained(Stream(files, rows))
    assert recorded(files) == []


@pytest.mark.parametrize(("error", "kind"), [("unavailable", TemporaryFailure), ("refused", UserError)])
def test_where_no_row_at_all_was_answered_nothing_is_allowed(files: Files, error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="4 of 4 rows have no answer"):
        versions(files, passing=1.0, refused=1.0).drained(Stream(files, student(4, error)), "exam")
    assert recorded(files) == []


def test_a_budget_that_is_used_up_is_nobodys_fault(files: Files) -> None:
    record = versions(files).drained(Stream(files, [*student(1), *student(3, NO_BUDGET)]), "exam", "exam (teacher)")
    assert record["result"]["errors"] == {NO_BUDGET: 3}


def test_both_models_are_told(files: Files) -> None:
    rows = [*student(3, "unavailable", "gone"), *teacher(1, "bad_request", "HTTP 422: seed")]
    with pytest.raises(UserError) as stopped:
        versions(files).drained(Stream(files, rows))
    message = str(stopped.value)
    assert (
        "3 of 4 rows have no answer: 3 unavailable (gone); 1 of 1 rows got nothing from the teacher: 1 bad_request (H" in message
    )


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ("", True),
        ("content_filter", True),  # answered, and paid for
        ("no_content: only reasoning", True),
        ("unavailable: HTTP 503", False),
        ("bad_request: HTTP 422", False),
        ("prompt_too_long: 900 tokens", False),
        ("refused: by the engine", False),
        ("chat_template: no system role", False),
        ("a reason of tomorrow", False),
    ],
)
def test_what_nothing_was_written_for_is_asked_again(error: str, kept: bool) -> None:
    assert is_kept(error) is kept
