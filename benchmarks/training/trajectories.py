"""What one training of updates.py is known by, and which learning rates came out best."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Example: Trajectory(task="trec", draw=0, method="full", rate=5e-5, schedule="constant", looks=(15, 30, 60), ...)"""

    task: str
    draw: int
    """Of the seed set; also the training's seed."""
    method: str
    rate: float
    schedule: str
    looks: tuple[int, ...]
    """Updates after which the student is examined; the last is the training's total."""
    test_rows: int
    model: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", tuple(self.looks))  # JSON has lists only

    def __str__(self) -> str:
        return f"{self.method} {self.rate:g} {self.schedule}, {self.task}, draw {self.draw}"

    @property
    def total(self) -> int:
        return self.looks[-1]


def best_rates(lines: Iterable[Mapping[str, Any]], *, at: int, count: int) -> list[float]:
    """The `count` rates with the largest mean test accuracy over tasks and draws, after `at` updates or the look nearest to it.

    A training that ended before, in a loss that was not finite, counts as none right.
    """
    found: dict[float, list[float]] = defaultdict(list)
    for line in lines:
        nearest = min(line["trajectory"]["looks"], key=lambda updates: abs(updates - at))
        right = [look["accuracy"] for look in line["looks"] if look["updates"] == nearest]
        found[line["trajectory"]["rate"]].append(right[0] if right else 0.0)
    return sorted(found, key=lambda rate: (-statistics.mean(found[rate]), rate))[:count]
