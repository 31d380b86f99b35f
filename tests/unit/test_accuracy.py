"""Intervals against published values, and what must hold of a paired difference whatever the rows."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.accuracy import Grades, grade, paired_difference, proportion, unanswered

marks = st.dictionaries(st.integers(0, 60).map(str), st.tuples(st.booleans(), st.booleans()), min_size=1)


# Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_as_published(hits: int, total: int, low: float, high: float) -> None:
    found = proportion(hits, total)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.value == hits / total


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_proportion_lies_in_its_interval_and_mirrors(of: tuple[int, int]) -> None:
    hits, total = of
    found, mirrored = proportion(hits, total), proportion(total - hits, total)
    assert 0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high)


def test_no_rows_say_nothing() -> None:
    found = proportion(0, 0)
    assert math.isnan(found.value) and (found.low, found.high) == (0.0, 1.0)
    difference = paired_difference({}, {})
    assert math.isnan(difference.value) and difference.verdict == "not shown to differ"


def test_a_paired_difference_by_hand() -> None:
    """40 rows, 9 gained, 2 lost: (9.5 - 2.5) / 42 = 0.16667, and 1.96 sqrt(12 - 49/42) / 42 = 0.15360 around it."""
    ours = {str(i): i < 29 for i in range(40)}
    theirs = {str(i): i < 20 or i in (30, 31) for i in range(40)}
    found = paired_difference(ours, theirs)
    assert found.value == pytest.approx(7 / 40)
    assert (found.low, found.high) == (pytest.approx(0.01307, abs=1e-4), pytest.approx(0.32026, abs=1e-4))
    assert found.verdict == "better"
    assert paired_difference(theirs, ours).verdict == "worse"


@given(marks)
def test_a_difference_is_one_of_the_two_accuracies_and_turns_its_sign(rows: dict[str, tuple[bool, bool]]) -> None:
    ours, theirs = {k: a for k, (a, _) in rows.items()}, {k: b for k, (_, b) in rows.items()}
    found, turned = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert found.value == pytest.approx((sum(ours.values()) - sum(theirs.values())) / len(rows))
    assert -1 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1
    assert (found.low, found.high) == (pytest.approx(-turned.high), pytest.approx(-turned.low))


@given(st.dictionaries(st.text(), st.booleans(), min_size=1))
def test_a_student_does_not_differ_from_itself(rows: dict[str, bool]) -> None:
    assert paired_difference(rows, rows).verdict == "not shown to differ"


def test_only_rows_of_both_count() -> None:
    assert paired_difference({"a": True, "b": True}, {"a": True, "c": False}).value == 0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"correct": True, "error": ""}, "right"),
        ({"correct": False, "error": ""}, "wrong"),
        ({"correct": False, "error": "prompt_too_long"}, "unanswered"),
    ],
)
def test_a_row_is_right_wrong_or_unanswered(row: dict[str, Any], expected: str) -> None:
    assert grade(row) == expected


@pytest.mark.parametrize(
    ("evaluated", "wrong", "errors", "right", "accuracy", "nothing_wrong"),
    [
        (40, 8, {"prompt_too_long": 2}, 30, 0.75, False),
        (40, 0, {}, 40, 1.0, True),
        (40, 0, {"refused": 1, "bad_request": 1}, 38, 0.95, True),
        (40, 40, {}, 0, 0.0, False),
        (40, 0, {"unavailable": 40}, 0, 0.0, False),
    ],
)
def test_accuracy_is_the_right_rows_of_all_rows(
    evaluated: int, wrong: int, errors: dict[str, int], right: int, accuracy: float, nothing_wrong: bool
) -> None:
    found = Grades.of({"evaluated": evaluated, "wrong": wrong, "errors": errors, "truncated": 3})
    assert (found.right, found.accuracy.value, found.nothing_wrong) == (right, accuracy, nothing_wrong)
    assert found.unanswered == unanswered({"errors": errors}) == evaluated - wrong - right


PACKAGE = Path(__file__).parents[2] / "llm2llm_ray"
COUNTS = {"wrong", "evaluated", "hits", "errors"}


def arithmetic(tree: ast.AST) -> Iterator[str]:
    """Differences and shares of counts of graded rows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Div | ast.FloorDiv):
            names = {leaf.attr for leaf in ast.walk(node) if isinstance(leaf, ast.Attribute)}
            names |= {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
            names |= {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}
            if names & COUNTS:
                yield ast.unparse(node)


def test_nobody_else_computes_it() -> None:
    assert [*arithmetic(ast.parse("1 - round_.wrong / round_.evaluated"))], "the search finds what it is for"
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "accuracy.py"]
    assert {path.name: found for path in files if (found := [*arithmetic(ast.parse(path.read_text()))])} == {}


def test_nobody_else_reads_what_the_grader_found() -> None:
    """But for the record that tasks and gates are handed."""
    reading = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == "correct"
    }
    assert reading == {"accuracy.py", "rounds/augmenting.py"}
