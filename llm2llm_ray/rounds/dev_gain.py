"""Which student a run keeps and when it has stopped gaining, from accuracies on the dev rows. Pure; never sees the test set."""

from __future__ import annotations

from collections.abc import Sequence


def kept(accuracies: Sequence[float]) -> int:
    """Number of the student to keep: the best; of equals the latest, which has seen the most data. Raises ValueError on none."""
    if not accuracies:
        raise ValueError("no student was examined on the dev rows")
    return max(range(len(accuracies)), key=lambda i: (accuracies[i], i))


def without_gain(accuracies: Sequence[float]) -> int:
    """Students at the end of the row that did not beat the best one before them. Example: [0.5, 0.6, 0.6, 0.55] -> 2"""
    best = max(range(len(accuracies)), key=lambda i: (accuracies[i], -i), default=0)
    return max(0, len(accuracies) - 1 - best)
