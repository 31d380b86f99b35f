"""Which rows of a graded round the teacher is asked about: `augmentation.targets`. Pure; all draws are hashes, so a run that goes
on draws the same.

- `wrong`: every wrong row (the paper).
- `weakest`: `weakest_share` of the answered rows, the weakest first (weakness.py), and of equals by lot. Each class gets as much
  of it as it has of the wrong rows, and at least one row where it has a wrong one. Without a wrong row there are no quotas.
- `all`: every answered row.
- `random`: as many rows as are wrong, drawn from all answered rows: what aiming at the wrong ones is compared with.

With `random_share` p so many of the other answered rows are drawn on top that they are p of all that are asked about. Everything
but `wrong` alone is known only when the last row is graded. Rows without an answer are nobody's target.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from llm2llm_ray.config import AugmentationConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An answered row. Example: Seen(id="s-17", group="billing", wrong=True, weakness=0.75)"""

    id: str
    group: str
    """Its class; "" where there are none."""
    wrong: bool
    weakness: float


def needs_all_rows(settings: AugmentationConfig) -> bool:
    """Whether targets are known only once every row is graded: student and teacher then work one after the other."""
    return settings.targets != "wrong" or settings.random_share > 0


def targets(rows: Iterable[Seen], settings: AugmentationConfig, *, run_seed: int, iteration: int) -> frozenset[str]:
    """Ids of the rows to ask about, whatever order the rows come in."""
    lots = sorted(rows, key=lambda row: sha256(f"{run_seed}/{iteration}/{row.id}".encode()).digest())
    wrong = [row for row in lots if row.wrong]
    if settings.targets == "wrong":
        chosen = wrong
    elif settings.targets == "all":
        chosen = lots
    elif settings.targets == "random":
        chosen = lots[: len(wrong)]
    else:
        chosen = _weakest(lots, Counter(row.group for row in wrong), math.ceil(settings.weakest_share * len(lots)))
    ids = {row.id for row in chosen}
    others = [row.id for row in lots if row.id not in ids]
    more = round(len(chosen) * settings.random_share / (1 - settings.random_share))
    return frozenset(ids).union(others[:more])


def _weakest(lots: Sequence[Seen], wrong: Mapping[str, int], count: int) -> list[Seen]:
    ranked = sorted(lots, key=lambda row: -row.weakness)  # stable: equals stay in the order of their lots
    left = quotas(wrong, Counter(row.group for row in lots), count)
    first, rest = [], []
    for row in ranked:
        if left.get(row.group, 0) > 0:
            left[row.group] -= 1
            first.append(row)
        else:
            rest.append(row)
    return first + rest[: max(0, count - len(first))]


def quotas(wrong: Mapping[str, int], rows: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of `count` each group gets: in proportion to its wrong rows, at least one, at most its rows.

    More than `count` where more groups have a wrong row; less where the groups have not so many rows.
    Example: quotas({"a": 3, "b": 1}, {"a": 9, "b": 9, "c": 9}, 8) == {"a": 6, "b": 2}
    """
    groups = sorted(group for group, number in wrong.items() if number)
    whole = sum(wrong.values())
    parts = {group: count * wrong[group] for group in groups}
    ideal = {group: parts[group] / whole for group in groups}
    found = {group: min(rows[group], max(1, math.floor(ideal[group]))) for group in groups}
    while sum(found.values()) < count:
        open_ones = [group for group in groups if found[group] < rows[group]]
        if not open_ones:
            break
        found[max(open_ones, key=lambda group: ideal[group] - found[group])] += 1
    while sum(found.values()) > count and max(found.values(), default=0) > 1:
        over = [group for group in groups if found[group] > 1]
        found[max(over, key=lambda group: found[group] - ideal[group])] -= 1
    return found
