"""What the first and the kept student took for what on the test rows, where answers are few enough to be classes.

The task's grader decided what is right; nothing is graded again here. Classes are the task's labels, else the gold answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.accuracy import grade
from llm2llm_ray.history.record import RunRecord

NO_ANSWER = "no answer"
"""The student said something, and no answer was in it."""
UNANSWERED = "unanswered"
OTHER = "other"
_MOST_CLASSES = 16
"""A matrix of more classes is a table of its largest cells instead."""
_MOST_GOLDS = 200
_MOST_MISTAKES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    count: int
    share: float
    """Of its gold class."""
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One student: a line of cells for each gold class, a column for each class answered."""

    name: str
    hits: int
    total: int
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Gold taken for something else, before and after."""

    gold: str
    said: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """`absent` says why there is nothing to show; "" otherwise. `matrices` is empty when there are too many classes."""

    absent: str = ""
    columns: tuple[str, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    swaps: tuple[Swap, ...] = ()
    more_swaps: int = 0


def confusion(run: RunRecord) -> Confusion:
    accuracy = run.exams["accuracy"] if run.exams else {}
    if "first" not in accuracy or "kept" not in accuracy:
        return Confusion(absent="No exam of the first and the kept student: there is nothing to compare.")
    rows = {who: list(run.round_rows(accuracy[who]["rows"])) for who in ("first", "kept")}
    if not all(rows.values()):
        return Confusion(absent="The graded rows of the exams are no longer in the run folder.")
    golds = [row["output"] for row in rows["kept"]]
    classes = _labels(run, accuracy["kept"]["rows"]) or sorted(set(golds))
    if len(classes) > _MOST_GOLDS or 2 * len(classes) > max(len(golds), 4):
        return Confusion(absent="The answers of this task are free text, so there are no classes to confuse.")
    counts = {who: _counts(found, classes) for who, found in rows.items()}
    extra = [
        name for name in (OTHER, NO_ANSWER, UNANSWERED) if any(said == name for found in counts.values() for _, said in found)
    ]
    small = len(classes) <= _MOST_CLASSES
    swaps = _swaps(counts["first"], counts["kept"])
    return Confusion(
        columns=(*classes, *extra),
        matrices=tuple(_matrix(who, counts[who], classes, extra) for who in ("first", "kept")) if small else (),
        swaps=tuple(swaps[:_MOST_MISTAKES]),
        more_swaps=max(0, len(swaps) - _MOST_MISTAKES),
    )


def _labels(run: RunRecord, folder: str) -> list[str]:
    """As the stage's inputs describe the task; a task without labels has none there."""
    stage = next((s for s in run.stages if s["name"] == "exam" and s["result"]["folder"] == folder), None)
    described = stage["inputs"].get("task") if stage else None
    labels = described.get("labels") if isinstance(described, dict) else None
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _counts(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> Counter[tuple[str, str]]:
    """(gold, said) -> rows. Right rows, and only those, lie on the diagonal, however their answer is written."""
    known = set(classes)
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        gold, answer = row["output"], row["answer"]
        said = NO_ANSWER if answer is None else answer if answer in known and answer != gold else OTHER
        found[gold, {"right": gold, "wrong": said, "unanswered": UNANSWERED}[grade(row)]] += 1
    return found


def _matrix(who: str, counts: Counter[tuple[str, str]], classes: Sequence[str], extra: Sequence[str]) -> Matrix:
    lines = []
    for gold in classes:
        of_gold = sum(n for (g, _), n in counts.items() if g == gold) or 1
        cells = [Cell(count=counts[gold, said], share=counts[gold, said] / of_gold, right=gold == said) for said in classes]
        cells += [Cell(count=counts[gold, said], share=counts[gold, said] / of_gold, right=False) for said in extra]
        lines.append((gold, tuple(cells)))
    return Matrix(
        name={"first": "First student (seeds)", "kept": "Kept student (LLM2LLM)"}[who],
        hits=sum(n for (gold, said), n in counts.items() if gold == said),
        total=sum(counts.values()),
        lines=tuple(lines),
    )


def _swaps(first: Counter[tuple[str, str]], last: Counter[tuple[str, str]]) -> list[Swap]:
    pairs = {pair for pair in first | last if pair[0] != pair[1]}
    found = [Swap(gold=gold, said=said, first=first[gold, said], last=last[gold, said]) for gold, said in pairs]
    return sorted(found, key=lambda swap: (-max(swap.first, swap.last), -swap.first, swap.gold, swap.said))
