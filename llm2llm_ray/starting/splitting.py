"""Dev and test rows split off: each label's share of them, near copies on one side, the same rows for the same file and seed.

Rows that are near copies of one another (augmentation/similarity.py) go together. What the gate before dev and test would still
call near (augmentation/held_out.py, whose rule is wider for short texts) is joined too and the split made anew, until a run of it
has nothing to tell of; only rows of one template, of which there are too many, are left to those notices.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.augmentation.similarity import NearDuplicates
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.starting.cleaning import Read
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

_ROUNDS = 10
_LARGEST, _LARGEST_SHARE = 8, 0.2
"""Rows that are joined by the gate's rule, at most, and share of a label's: more that look alike are fillings of one template."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows to split off."""

    dev: int
    test: int


def usual_sizes(rows: int) -> Sizes:
    """A fifth of the rows for the test, and 30 if that is no more than a third; a tenth, and 15, for dev.

    Example: usual_sizes(50) == Sizes(dev=6, test=16); usual_sizes(240) == Sizes(dev=24, test=48)
    """
    test = min(1000, max(round(0.2 * rows), min(30, rows // 3)))
    dev = min(500, max(round(0.1 * rows), min(15, rows // 8)))
    return Sizes(dev=dev, test=test)


def split(rows: Sequence[Read], task: Task, wanted: Mapping[str, int], seed: int) -> dict[str, list[Read]]:
    """`rows` as seed, dev and test, in the order in which they came. `wanted`: rows by role, dev or test. Every label keeps half
    of its rows, rounded up, as seeds; a role gets fewer rows than wanted where labels are small or their rows much alike."""
    order = sorted(range(len(rows)), key=lambda number: _rank(rows[number], seed))
    ranked = [rows[number] for number in order]
    groups = [_group(task, row) for row in ranked]
    joined = _Joined(groups)
    for one, other in _copies(ranked):
        joined.join(one, other)
    parts = _dealt(groups, joined, wanted)
    for _ in range(_ROUNDS):
        pairs = [pair for pair in _near(ranked, parts) if joined.join_small(*pair)]
        if not pairs:
            break
        parts = _dealt(groups, joined, wanted)
    return {role: [rows[number] for number in sorted(order[place] for place in places)] for role, places in parts.items()}


def _rank(row: Read, seed: int) -> str:
    """The same order whatever that of the file."""
    return hashlib.sha256(f"{seed}\0{row.text}\0{row.label}".encode()).hexdigest()


def _group(task: Task, row: Read) -> str:
    return task.group(Example(id="row", input=row.text, output=row.label))


class _Joined:
    """Rows that must stay together, as a forest."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._parents = list(range(len(groups)))
        self._sizes = [1] * len(groups)
        self._groups = groups
        self._most = {group: max(2, min(_LARGEST, int(_LARGEST_SHARE * count))) for group, count in Counter(groups).items()}

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = number = self._parents[self._parents[number]]
        return number

    def join(self, one: int, other: int) -> bool:
        """Whether they were apart."""
        low, high = sorted((self.root(one), self.root(other)))
        if low != high:
            self._parents[high] = low
            self._sizes[low] += self._sizes[high]
        return low != high

    def join_small(self, one: int, other: int) -> bool:
        """`join`, unless the rows together would be more than few of their label."""
        size = self._sizes[self.root(one)] + self._sizes[self.root(other)]
        return size <= self._most[self._groups[one]] and self.join(one, other)


def _copies(rows: Sequence[Read]) -> Iterator[tuple[int, int]]:
    index = NearDuplicates(AugmentationConfig().near_duplicate)
    for number, row in enumerate(rows):
        found = index.find(row.text)
        if found is not None:
            yield number, int(found[0])
        index.add(str(number), row.text)


def _near(rows: Sequence[Read], parts: Mapping[str, Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Pairs on two sides that the gate calls near: seeds and held-out rows as before a run, then dev and test rows."""
    dev, test = parts["dev"], parts["test"]
    for looked, held_out in ((parts["seed"], [*dev, *test]), (dev, test)):
        find = HeldOut(
            [_example(rows, number) for number in held_out],
            AugmentationConfig().near_test,
            [_example(rows, number) for number in looked],
        ).find
        for number in looked if held_out else ():
            found = find(rows[number].text)
            if found is not None:
                yield number, int(found[0])


def _example(rows: Sequence[Read], number: int) -> Example:
    return Example(id=str(number), input=rows[number].text, output=rows[number].label)


def _dealt(groups: Sequence[str], joined: _Joined, wanted: Mapping[str, int]) -> dict[str, list[int]]:
    """Row numbers by role: units in the order of their first row, each to the first role whose shares have room for it."""
    units: dict[int, list[int]] = defaultdict(list)
    for number in range(len(groups)):
        units[joined.root(number)].append(number)
    room = _shares(Counter(groups), wanted)
    parts: dict[str, list[int]] = {"seed": [], "dev": [], "test": []}
    for unit in units.values():
        sizes = Counter(groups[number] for number in unit)
        role = next((role for role in ("test", "dev") if all(size <= room[role][group] for group, size in sizes.items())), "seed")
        parts[role] += unit
        if role != "seed":
            room[role].subtract(sizes)
    return parts


def _shares(sizes: Counter[str], wanted: Mapping[str, int]) -> dict[str, Counter[str]]:
    """Role -> label -> rows, in the labels' own proportions by largest remainders; half of a label's rows stay seeds."""
    left = {group: size // 2 for group, size in sizes.items()}
    total = sum(sizes.values())
    shares: dict[str, Counter[str]] = {}
    for role in ("test", "dev"):
        exact = {group: wanted.get(role, 0) * size / total for group, size in sizes.items()}
        share = Counter({group: min(left[group], int(exact[group])) for group in sizes})
        by_remainder = sorted(sizes, key=lambda group: (int(exact[group]) - exact[group], group))
        missing = wanted.get(role, 0) - sum(share.values())
        for group in [*by_remainder, *by_remainder]:
            if missing > 0 and share[group] < left[group]:
                share[group] += 1
                missing -= 1
        shares[role] = share
        left = {group: left[group] - share[group] for group in sizes}
    return shares
