"""Sums over intervals of time: how long any was open, how many at once, how long two kinds overlapped. Pure; seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Interval = tuple[float, float]
"""(start, end), start <= end."""


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time as disjoint intervals in order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def clipped(intervals: Iterable[Interval], start: float, end: float) -> list[Interval]:
    """What of them lies between `start` and `end`; an interval that only touches the edge is left out."""
    return [(max(a, start), min(b, end)) for a, b in intervals if a < end and b > start]


def length(intervals: Iterable[Interval]) -> float:
    """Seconds in which at least one is open."""
    return sum(end - start for start, end in merged(intervals))


def overlap(ours: Sequence[Interval], theirs: Sequence[Interval]) -> float:
    """Seconds in which at least one of each is open."""
    return length(ours) + length(theirs) - length([*ours, *theirs])


def peak(intervals: Iterable[Interval]) -> int:
    """Most open at once; one that ends when another starts is not open beside it."""
    changes = sorted(change for start, end in intervals for change in ((start, 1), (end, -1)))
    most = now = 0
    for _, step in changes:
        now += step
        most = max(most, now)
    return most


def mean_open(intervals: Sequence[Interval]) -> float:
    """How many are open on average while any is; 0 for none."""
    seconds = length(intervals)
    return sum(end - start for start, end in intervals) / seconds if seconds else 0.0
