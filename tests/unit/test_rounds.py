"""What is told of a round is what its stored rows say: counts, tokens, and how far the two roles overlapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stream_rows import augmented, judged, solved, write_rows

from llm2llm_ray.rounds.rows import candidates_of, round_rows, tally
from llm2llm_ray.storage.files import Files


def told(tmp_path: Path, *rows: dict[str, Any]) -> dict[str, Any]:
    files = Files(str(tmp_path / "run"))
    write_rows(files, "rounds/r", rows)
    return tally(files, "rounds/r")


def test_counts_and_tokens(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        solved("s-1"),
        solved("s-2", correct=False, truncated=True),
        solved("s-3", correct=False, error="prompt_too_long"),
        augmented("s-4", "a", "b", rejected=["empty"], asked=2, other_group=1),
        augmented("s-5", rejected=["empty", "teacher_error"], teacher_error="timeout", budget_stop=True),
    )
    assert (found["evaluated"], found["wrong"], found["truncated"]) == (5, 3, 1)
    assert found["errors"] == {"prompt_too_long": 1}
    assert (found["asked"], found["rows_asked"], found["budget_stops"]) == (3, 2, 1)
    assert found["other_group"] == 1
    assert found["rejected"] == {"empty": 2, "teacher_error": 1}
    assert found["teacher_errors"] == {"timeout": 1}
    assert found["student_tokens"] == 5 * 12
    assert (found["teacher_prompt_tokens"], found["teacher_completion_tokens"]) == (200, 40)


def test_votes_are_counted_by_what_they_came_to(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        solved("s-1"),
        judged(augmented("s-2", "a", "b"), "confirmed", "doubted", said=["billing", "account"]),
        judged(augmented("s-3", "c"), "unheard", said=["unavailable: why"], judge_error="unavailable"),
        augmented("s-4", rejected=["empty"]),
    )
    assert {name: found[name] for name in ("judged", "rows_judged", "confirmed", "doubted", "unheard")} == {
        "judged": 3, "rows_judged": 2, "confirmed": 1, "doubted": 1, "unheard": 1,
    }  # fmt: skip
    assert (found["judge_prompt_tokens"], found["judge_completion_tokens"]) == (100, 6)
    assert (found["votes_without_answer"], found["judge_errors"]) == (1, {"unavailable": 1})


def test_a_round_without_votes_has_none(tmp_path: Path) -> None:
    found = told(tmp_path, augmented("s-1", "a"))
    assert (found["judged"], found["rows_judged"], found["judge_errors"]) == (0, 0, {})


def test_a_budget_stop_before_the_first_call_is_told(tmp_path: Path) -> None:
    found = told(tmp_path, augmented("s-1", asked=0, budget_stop=True))
    assert (found["asked"], found["budget_stops"], found["wrong"]) == (0, 1, 1)


def test_overlap(tmp_path: Path) -> None:
    """Answers end at 10, 12 (wrong), 14 (wrong), 20; the teacher is asked at 13 and 25: one of two before the last answer."""
    found = told(
        tmp_path,
        solved("s-1", solved_from=9.0, solved_until=10.0),
        augmented("s-2", solved_from=9.0, solved_until=12.0, asked_from=13.0, asked_until=30.0),
        augmented("s-3", solved_from=9.0, solved_until=14.0, asked_from=25.0, asked_until=30.0),
        solved("s-4", solved_from=9.0, solved_until=20.0),
    )["overlap"]
    assert found["share_before_last_answer"] == pytest.approx(0.5)
    assert found["first_call_after_s"] == pytest.approx(1.0)


def test_a_row_without_an_answer_is_no_wrong_answer_to_wait_from(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        solved("s-1", correct=False, error="prompt_too_long", solved_until=1.0),
        augmented("s-2", solved_until=12.0, asked_from=12.5),
    )["overlap"]
    assert found["first_call_after_s"] == pytest.approx(0.5)


def test_no_teacher_no_overlap(tmp_path: Path) -> None:
    nothing = {"share_before_last_answer": None, "first_call_after_s": None}
    assert told(tmp_path, solved("s-1"), solved("s-2", correct=False))["overlap"] == nothing


def test_an_empty_round_is_all_zero(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert (found["evaluated"], found["wrong"], found["errors"]) == (0, 0, {})


def test_candidates_come_back_as_they_went(tmp_path: Path) -> None:
    files = Files(str(tmp_path / "run"))
    write_rows(files, "rounds/r", [augmented("s-1", "one", "two"), solved("s-2")])
    first, second = (candidates_of(row) for row in round_rows(files, "rounds/r"))
    assert [(c.input, c.index, c.lineage.seed_id) for c in first] == [("one", 0, "s-1"), ("two", 1, "s-1")]
    assert second == []
