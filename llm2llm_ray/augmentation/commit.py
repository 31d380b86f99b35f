"""The commit gates: what can be said against a row only by looking at all rows. They decide what A^i is.

Keeps: no row of a version is a copy or near copy of another, or of a dev or test row, or contradicts one; and the order
in which replies arrived changes nothing, because candidates are taken in canonical order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json import dumps

from llm2llm_ray.augmentation.caps import Caps
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.augmentation.row_index import answer_tag
from llm2llm_ray.augmentation.similarity import AHEAD, NearDuplicates
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.types import Example, Lineage, Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A draft that passed the stateless gates, with where it comes from.

    Example: Candidate(input="Where is my refund?", output="billing", lineage=Lineage(seed_id="s-17", …), index=0)
    """

    input: str
    output: str
    lineage: Lineage
    index: int
    """Position in its reply: a reply may hold several drafts."""
    weight: float = 1.0
    """In the training loss: less where a gate left it in doubt."""

    @property
    def order(self) -> tuple[str, int, int, int, str, str]:
        """The canonical order: by seed, then request, try and position; the text only settles a tie."""
        line = self.lineage
        return line.seed_id, line.ordinal, line.attempt, self.index, self.input, self.output

    def example(self) -> Example:
        """The row this candidate becomes. Its id depends on nothing but what it says and which request made it."""
        digest = sha256(dumps(self.order, ensure_ascii=True).encode()).hexdigest()
        return Example(
            id=f"a-{digest[:16]}", input=self.input, output=self.output, origin="augmented", lineage=self.lineage,
            weight=self.weight,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    candidate: Candidate
    example: Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    candidate: Candidate
    rejected: Rejected


class CommitGates:
    """Built for one round from the rows of all versions so far; every admitted row counts as one of them at once."""

    def __init__(
        self,
        existing: Iterable[Example] | NearDuplicates,
        held_out: HeldOut,
        settings: AugmentationConfig,
        answer: Callable[[str], str | None],
        caps: Caps | None = None,
    ) -> None:
        """`existing`: rows of D^0..D^i, or their index (row_index.py) with the rows' answers as tags. `answer`: a row's
        output -> its gold answer, `lambda output: task.answer(task.completion(output))`; two rationales for one answer
        are no contradiction. `settings`: of this round (`of_round`)."""
        assert not isinstance(settings.rows_at_most, tuple), "of which round?"
        self._answer, self._caps, self._at_most = answer, caps, settings.rows_at_most
        self._copies = settings.copies
        self._rows = self._index(existing, settings.near_duplicate)
        if held_out.threshold != settings.near_test:
            raise ValueError(f"held-out rows for threshold {held_out.threshold}, where {settings.near_test} is asked")
        self._held_out = held_out

    def admit(self, candidates: Iterable[Candidate]) -> Iterator[Admitted | Refused]:
        """Judge all candidates of a round, in canonical order. Only once: a second time all are duplicates.

        With `rows_at_most` each seed's first comes before any seed's second, so that no seed is left out for being late in the
        order, and what is over is told of rows that nothing else can be said against.
        """
        drafts = sorted(candidates, key=lambda c: c.order)
        if self._at_most is not None:
            drafts = _in_turn(drafts)
        admitted = 0
        for number, candidate in enumerate(drafts):
            if number % AHEAD == 0:
                self._rows.look_ahead(draft.input for draft in drafts[number : number + AHEAD])
            example = candidate.example()
            # What is in excess is said of rows that nothing else can be said against: only those count.
            rejected = self._contaminated(candidate) or self._copied(candidate) or self._in_excess(example)
            if rejected is not None:
                yield Refused(candidate=candidate, rejected=rejected)
                continue
            if admitted == self._at_most:
                yield Refused(candidate=candidate, rejected=Rejected(reason="row_cap", text=candidate.input))
                continue
            admitted += 1
            self._keep(example)
            yield Admitted(candidate=candidate, example=example)

    def _contaminated(self, candidate: Candidate) -> Rejected | None:
        """Equal or near to a dev or test row. With errors from dev, a near copy of the mistake itself is meant too."""
        found = self._held_out.find(candidate.input)
        if found is None:
            return None
        return Rejected(reason="contaminated", detail=f"by {found[0]} ({found[1]:.2f})", text=candidate.input)

    def _copied(self, candidate: Candidate) -> Rejected | None:
        found = None if self._copies else self._rows.match(candidate.input)
        if found is None:
            return None
        if found.score < 1:
            reason = "near_duplicate"
        elif found.tag == self._tag(candidate.output):
            reason = "duplicate"
        else:
            reason = "conflicting_label"
        return Rejected(reason=reason, detail=f"of {found.id} ({found.score:.2f})", text=candidate.input)

    def _in_excess(self, row: Example) -> Rejected | None:
        return None if self._caps is None else self._caps.full(row)

    def _keep(self, row: Example) -> None:
        if self._caps is not None:
            self._caps.keep(row)
        self._rows.add(row.id, row.input, self._tag(row.output))

    def _tag(self, output: str) -> int:
        return answer_tag(self._answer(output))

    def _index(self, rows: Iterable[Example] | NearDuplicates, threshold: float) -> NearDuplicates:
        if isinstance(rows, NearDuplicates):
            if rows.threshold != threshold:
                raise ValueError(f"an index for threshold {rows.threshold}, where {threshold} is asked")
            return rows
        index = NearDuplicates(threshold)
        for row in rows:
            index.add(row.id, row.input, self._tag(row.output))
        return index


def _in_turn(drafts: Sequence[Candidate]) -> list[Candidate]:
    """Round by round over the seeds, each time the seed's next one. `drafts` are in canonical order."""
    taken: Counter[str] = Counter()
    numbered = []
    for draft in drafts:
        numbered.append((taken[draft.lineage.seed_id], draft))
        taken[draft.lineage.seed_id] += 1
    return [draft for _, draft in sorted(numbered, key=lambda pair: pair[0])]
