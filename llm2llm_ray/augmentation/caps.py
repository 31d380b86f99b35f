"""How many new rows of one class, and grown from one seed, a version may hold: what comes in excess makes it lopsided.

Counts over the whole version, rows of earlier iterations too. Candidates come in canonical order (commit.py), so which of them
are in excess does not depend on the order of arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from llm2llm_ray.config import CapsConfig
from llm2llm_ray.types import Example, Rejected


class Caps:
    def __init__(self, config: CapsConfig, group: Callable[[Example], str], existing: Iterable[Example] = ()) -> None:
        """`group`: a row's class, `task.group`. `existing`: rows of the version that is added to; read only if a cap is set."""
        self._config, self._group = config, group
        self._classes: Counter[str] = Counter()
        self._seeds: Counter[str] = Counter()
        if config.per_class is not None or config.per_seed is not None:
            for row in existing:
                self.keep(row)

    def full(self, row: Example) -> Rejected | None:
        """Why there may be no more rows like this one, or None."""
        assert row.lineage is not None, "only new rows are capped"
        kind, seed = self._group(row), row.lineage.seed_id
        if self._config.per_class is not None and self._classes[kind] >= self._config.per_class:
            return Rejected(reason="class_cap", detail=f"{self._classes[kind]} new rows of {kind[:80]}", text=row.input)
        if self._config.per_seed is not None and self._seeds[seed] >= self._config.per_seed:
            return Rejected(reason="seed_cap", detail=f"{self._seeds[seed]} new rows from {seed}", text=row.input)
        return None

    def keep(self, row: Example) -> None:
        """Count a row of the version; rows that users gave are never in excess."""
        if row.lineage is not None:
            self._classes[self._group(row)] += 1
            self._seeds[row.lineage.seed_id] += 1
