"""The tables of updates.py: accuracy by rate and updates, and when the seeds are known."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.measuring.measurement import Claim, Measurement, Rows

KNOWN = 0.99
"""Share of the seeds' completion tokens from which on the seeds count as known."""
BATCH = 8
Line = Mapping[str, Any]
_ACCURACY = ("method", "schedule", "rate", "updates", "trainings", "mean")
_SEEDS = ("greedy", "seeds' token accuracy", "least", "seeds' loss", "s per update")
_KNOWN = (
    "method", "rate", "task", "seeds", "trainings", "updates until known", "epochs until known", "never known",
    "best at updates", "accuracy there",
)  # fmt: skip


def measurement(lines: Sequence[Line], settings: Mapping[str, Any], *, small: bool) -> Measurement:
    tasks = list(dict.fromkeys(line["trajectory"]["task"] for line in lines))
    by_look = _by_look(lines)
    return Measurement(
        benchmark="updates",
        claims=_best(by_look, tasks),
        tables=[_accuracy(by_look, tasks), _until_known(lines)],
        raw=[dict(line) for line in lines],
        settings={**settings, "batch": BATCH, "precision": "float32", "lora": "rank 16, all linear layers"},
        small=small,
    )


Look = tuple[str, str, float, int]
"""Method, schedule, rate, updates."""


def _by_look(lines: Iterable[Line]) -> dict[Look, list[Line]]:
    """Every look with its task; a training that ended in a loss that was not finite has none from there on."""
    found: dict[Look, list[Line]] = defaultdict(list)
    for line in lines:
        one = line["trajectory"]
        for look in line["looks"]:
            place = (one["method"], one["schedule"], one["rate"], look["updates"])
            found[place].append({**look, "task": one["task"], "draw": one["draw"]})
    return dict(sorted(found.items()))


def _mean(looks: Iterable[Line], of: str) -> float | None:
    values = [look[of] for look in looks]
    return statistics.mean(values) if values else None


def _accuracy(by_look: Mapping[Look, Sequence[Line]], tasks: Sequence[str]) -> Rows:
    rows: list[list[Any]] = []
    for place, looks in by_look.items():
        each = [_mean((look for look in looks if look["task"] == task), "accuracy") for task in tasks]
        there = [value for value in each if value is not None]
        rows.append(
            [
                *place, len(looks), statistics.mean(there) if len(there) == len(tasks) else None, *each,
                _mean(looks, "greedy_accuracy"), _mean(looks, "token_accuracy"),
                min(look["token_accuracy"] for look in looks), _mean(looks, "loss"),
                statistics.median(look["seconds"] / look["updates"] for look in looks),
            ]
        )  # fmt: skip
    return Rows(
        title="Test accuracy by learning rate and updates, means over the draws; mean: of the tasks, where all are there",
        columns=[*_ACCURACY, *tasks, *_SEEDS],
        rows=rows,
    )


def _until_known(lines: Iterable[Line]) -> Rows:
    """Of constant rates: the first look at which the seeds are known, and the look with the best mean accuracy."""
    found: dict[tuple[str, float, str], list[Line]] = defaultdict(list)
    for line in lines:
        one = line["trajectory"]
        if one["schedule"] == "constant":
            found[one["method"], one["rate"], one["task"]].append(line)
    rows: list[list[Any]] = []
    for (method, rate, task), same in sorted(found.items()):
        first = [_known_at(line) for line in same]
        known = [updates for updates in first if updates is not None]
        seeds = statistics.median(line["seeds"] for line in same)
        until = statistics.median(known) if known else None
        at: dict[int, list[float]] = defaultdict(list)
        for line in same:
            for look in line["looks"]:
                at[look["updates"]].append(look["accuracy"])
        best = max(at, key=lambda updates, at=at: statistics.mean(at[updates])) if at else None  # type: ignore[misc]
        rows.append(
            [
                method, rate, task, seeds, len(same), until, until and round(until * BATCH / seeds, 1),
                first.count(None), best, best and statistics.mean(at[best]),
            ]
        )  # fmt: skip
    title = f"The first look at which {KNOWN:.0%} of the seeds' completion tokens are right (median), and the best look"
    return Rows(title=title, columns=_KNOWN, rows=rows)


def _known_at(line: Line) -> int | None:
    return next((look["updates"] for look in line["looks"] if look["token_accuracy"] >= KNOWN), None)


def _best(by_look: Mapping[Look, Sequence[Line]], tasks: Sequence[str]) -> list[Claim]:
    """Of each method and schedule, where every task was trained."""
    found: dict[tuple[str, str], tuple[float, float, int]] = {}
    for (method, schedule, rate, updates), looks in by_look.items():
        each = [_mean((look for look in looks if look["task"] == task), "accuracy") for task in tasks]
        there = [value for value in each if value is not None]
        if len(there) == len(tasks):
            found[method, schedule] = max(found.get((method, schedule), (0.0, 0.0, 0)), (statistics.mean(there), rate, updates))
    return [
        Claim(what=f"updates: {method}, {schedule}: best mean accuracy", value=value, unit="", note=f"rate {rate:g}, {n} updates")
        for (method, schedule), (value, rate, n) in found.items()
    ]
