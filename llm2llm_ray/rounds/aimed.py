"""A teacher's role is for the wrong rows, unless it is aimed at others (`augmentation.targets`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from llm2llm_ray.accuracy import grade


class Aimed:
    _targets: frozenset[str] | None = None

    def aimed_at(self, targets: frozenset[str]) -> Self:
        """The same role for these rows, right or wrong, instead of for all wrong ones."""
        aimed = copy.copy(self)
        aimed._targets = targets
        return aimed

    def is_for(self, row: Mapping[str, Any]) -> bool:
        return grade(row) == "wrong" if self._targets is None else row["id"] in self._targets
