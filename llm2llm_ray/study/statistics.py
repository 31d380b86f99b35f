"""Means and differences over draws of the seed set, run seeds and test rows, their 95 % intervals, and how many more draws would
settle a difference. Pure; the same numbers give the same intervals.

Interval: the percentile bootstrap (Efron and Tibshirani 1993, chapter 13) of nested data (Davison and Hinkley 1997, section 3.8):
draws are resampled, within each one its run seeds and its test rows. Differences are paired: both methods in the same draw, with
the same run seed, on the same rows, which are resampled together. Draws weigh the same, whatever they hold. Of a single draw only
run seeds and rows are resampled: such an interval says nothing of other seed sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""Of one draw: a row for each run seed, a column for each test row."""
Marks = Mapping[int, Mapping[int, Mapping[str, bool]]]
"""Draw -> run seed -> id of a test row -> whether the answer is right."""
_Z_95, _Z_80 = 1.959963984540054, 0.8416212335729143
"""Two-sided 5 % and a power of 80 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Example: Estimate(value=0.052, low=0.011, high=0.094)"""

    value: float
    low: float
    high: float

    @property
    def settled(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How far a study is from settling a difference. Variances are of a draw's mean difference."""

    draws: int
    between: float
    """Variance of the draws' own differences, were each known without error (0 where it cannot be told apart)."""
    within: float
    """Variance that a draw's mean has because its run seeds differ."""
    more: int | None
    """Further draws until a difference as large as this one would be found in 80 of 100 studies; None: not known (a single draw,
    or no difference at all)."""


def values(marks: Marks) -> list[Values]:
    """Right answers as 1, for a mean accuracy. Only test rows that all run seeds of a draw were asked."""
    return [_table([marks[draw]]) for draw in sorted(marks) if marks[draw]]


def differences(ours: Marks, theirs: Marks) -> list[Values]:
    """1 where only ours is right, -1 where only theirs is; of the draws, run seeds and rows that both have."""
    found = []
    for draw in sorted(ours.keys() & theirs.keys()):
        seeds = sorted(ours[draw].keys() & theirs[draw].keys())
        if seeds:
            both = [{seed: side[draw][seed] for seed in seeds} for side in (ours, theirs)]
            rows = _shared(both)
            found.append(_right(both[0], rows) - _right(both[1], rows))
    return [table for table in found if table.size]


def _table(sides: Sequence[Mapping[int, Mapping[str, bool]]]) -> Values:
    return _right(sides[0], _shared(sides))


def _shared(sides: Sequence[Mapping[int, Mapping[str, bool]]]) -> list[str]:
    asked = [frozenset(rows) for side in sides for rows in side.values()]
    return sorted(frozenset.intersection(*asked))


def _right(side: Mapping[int, Mapping[str, bool]], rows: Sequence[str]) -> Values:
    return np.array([[float(side[seed][row]) for row in rows] for seed in sorted(side)], dtype=np.float64)


def mean(draws: Sequence[Values]) -> float:
    """Over draws, of the mean over their run seeds and rows; nan without any."""
    return math.fsum(float(draw.mean()) for draw in draws) / len(draws) if draws else math.nan


def estimate(draws: Sequence[Values], *, resamples: int) -> Estimate | None:
    """The mean with its interval; None without any draw."""
    if not draws:
        return None
    random, number = np.random.default_rng(0), len(draws)
    chosen = random.integers(number, size=(resamples, number))
    sums = np.zeros(resamples)
    for slot in range(number):
        for place, draw in enumerate(draws):
            here = np.flatnonzero(chosen[:, slot] == place)
            sums[here] += _resampled(draw, len(here), random)
    low, high = np.quantile(sums / number, (0.025, 0.975))
    return Estimate(value=mean(draws), low=float(low), high=float(high))


def _resampled(draw: Values, times: int, random: np.random.Generator) -> Any:
    """So many means of the draw, each of run seeds and rows drawn anew, with replacement."""
    seeds, rows = draw.shape
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=times)
    of_rows = random.multinomial(rows, np.full(rows, 1 / rows), size=times)
    return ((of_seeds @ draw) * of_rows).sum(axis=1) / (seeds * rows)


def power(draws: Sequence[Values]) -> Power:
    """Sample size of a paired comparison by normal approximation, n = (z_0.975 + z_0.8)^2 s^2 / d^2 (Chow, Shao and Wang 2008,
    "Sample Size Calculations in Clinical Research", section 3.1), d the mean difference and s^2 the variance of the draws' means.
    That is s^2 = between + within / run seeds (Raudenbush 1997, "Statistical analysis and optimal design for cluster randomized
    trials"); the test rows are the same in further draws, and their spread is part of `between`."""
    means = [float(draw.mean()) for draw in draws]
    within = math.fsum(_of_seeds(draw) for draw in draws) / len(draws) if draws else 0.0
    if len(draws) < 2:
        return Power(draws=len(draws), between=0.0, within=within, more=None)
    variance, effect = float(np.var(means, ddof=1)), mean(draws)
    between = max(0.0, variance - within)
    if effect == 0:
        return Power(draws=len(draws), between=between, within=within, more=None)
    needed = math.ceil((_Z_95 + _Z_80) ** 2 * variance / effect**2)
    return Power(draws=len(draws), between=between, within=within, more=max(0, needed - len(draws)))


def _of_seeds(draw: Values) -> float:
    """Variance of the draw's mean over run seeds; 0 of a single one, of which nothing is known."""
    means = draw.mean(axis=1)
    return float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0
