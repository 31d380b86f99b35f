"""What became of every mistake: the rejections by reason, and the rows that the explorer searches. All texts are untrusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.history.record import Mistake, Outcome, RoundRecord, RunRecord
from llm2llm_ray.report.wording import clipped

MOST_ROWS = 20_000
"""Rows that the page carries; a browser searches as many in a few milliseconds."""
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    name: str
    meaning: str
    count: int
    share: float
    examples: tuple[tuple[Mistake, Outcome], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejections:
    accepted: int
    rejected: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explorer:
    """`data` goes into the page as JSON: {"mistakes": [[…]], "rows": [[…]]}; rows name their mistake by its number."""

    data: dict[str, Any]
    shown: int
    total: int
    iterations: tuple[tuple[int, int], ...]
    statuses: tuple[tuple[str, int], ...]
    reasons: tuple[tuple[str, int], ...]


def rejections(mistakes: Iterable[Mistake], meanings: Mapping[str, str]) -> Rejections:
    """Reasons by how often they were given, with a few examples from different rows. `meanings`: see augmentation.reasons."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[Mistake, Outcome]]] = {}
    accepted = 0
    for mistake in mistakes:
        for outcome in mistake.outcomes:
            if outcome.status == "accepted":
                accepted += 1
                continue
            counts[outcome.reason] += 1
            kept = examples.setdefault(outcome.reason, [])
            if len(kept) < _EXAMPLES and all(other.row_id != mistake.row_id for other, _ in kept):
                kept.append((mistake, outcome))
    total = sum(counts.values())
    return Rejections(
        accepted=accepted,
        rejected=total,
        reasons=tuple(
            Reason(name=name, meaning=meanings.get(name, ""), count=n, share=n / total, examples=tuple(examples[name]))
            for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def explorer(run: RunRecord, mistakes: Sequence[Mistake]) -> Explorer:
    """One row for each text the teacher wrote, and one for each mistake that nothing was written for."""
    why = {record.iteration: _why_nothing(record) for record in run.rounds()}
    seeds: list[list[Any]] = []
    rows: list[list[Any]] = []
    total = 0
    for mistake in mistakes:
        lines = [_line(outcome) for outcome in mistake.outcomes] or [["none", why[mistake.iteration], "", "", "", 0, 0]]
        total += len(lines)
        if len(rows) + len(lines) <= MOST_ROWS:
            rows += [[len(seeds), *line] for line in lines]
            seeds.append(_seed(mistake))
    return Explorer(
        data={"mistakes": seeds, "rows": rows},
        shown=len(rows),
        total=total,
        iterations=tuple(sorted(Counter(seeds[row[0]][0] for row in rows).items())),
        statuses=tuple(Counter(row[1] for row in rows).most_common()),
        reasons=tuple(Counter(row[2] for row in rows if row[2]).most_common()),
    )


def _seed(mistake: Mistake) -> list[Any]:
    answered = mistake.completion if mistake.answer is None else mistake.answer
    return [
        mistake.iteration, mistake.row_id, mistake.seed_id, clipped(mistake.input), clipped(mistake.gold),
        clipped(mistake.completion), clipped(answered),
    ]  # fmt: skip


def _line(outcome: Outcome) -> list[Any]:
    return [
        outcome.status, outcome.reason, clipped(outcome.detail), clipped(outcome.text), clipped(outcome.output),
        outcome.ordinal, outcome.attempt,
    ]  # fmt: skip


def _why_nothing(record: RoundRecord) -> str:
    """Why a mistake of that round has no outcome."""
    result = record.round["result"]
    if result["budget_stops"]:
        return "budget used up"
    if not result["asked"]:
        return "teacher not asked"
    return "no text found in the reply" if record.commit else "commit not done yet"
