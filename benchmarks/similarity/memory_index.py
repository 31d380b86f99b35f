"""The near-duplicate index that the one on disk replaced: datasketch's MinHashLSH and one set of Python objects per row.

Same rule, same bags, same permutations, so both must decide alike: dedup.py compares them. Kept as it was.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from datasketch import MinHash, MinHashLSH

from llm2llm_ray.augmentation.similarity import _REORDERED, _WEIGHT_FLOOR, LONG, _bag, _bag_key, _most_changed, _same_key
from llm2llm_ray.tasks.normal_form import words

_PERMUTATIONS = 128
_RECALL = 0.995


class MemoryIndex:
    """An index of texts. Holds per text two 16-byte keys and, if it can matter, 4 bytes a word and its LSH buckets."""

    def __init__(self, threshold: float, seed: int = 0) -> None:
        """`threshold` in (0, 1]: the score from which `find` reports; 1.0 reports nothing but the same text."""
        self._threshold = threshold
        self._shortest = LONG - _most_changed(threshold)
        bands, rows = _bands(threshold)
        self._blank = MinHash(num_perm=_PERMUTATIONS, seed=seed + 1, hashfunc=_itself)
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=(bands, rows))
        self._same: dict[bytes, str] = {}
        self._reordered: dict[bytes, str] = {}
        self._ids: list[str] = []
        self._bags: list[array[int]] = []

    def add(self, id: str, text: str) -> None:
        """Make `text` findable. Ids need not be unique: two sources may number their rows alike."""
        normal = words(text)
        if not normal:
            return
        for keys, key in ((self._same, _same_key(normal)), (self._reordered, _bag_key(normal))):
            keys[key] = min(id, keys.get(key, id))
        if len(normal) >= self._shortest:
            bag = _bag(normal)
            # The position is the key, because LSH keys must be unique.
            self._index.insert(len(self._ids), self._sketch(bag), check_duplication=False)
            self._ids.append(id)
            self._bags.append(bag)

    def find(self, text: str) -> tuple[str, float] | None:
        """(id, score) of the best match at or above the threshold; among equals the smallest id."""
        normal = words(text)
        if not normal:
            return None
        same = self._same.get(_same_key(normal))
        if same is not None:
            return same, 1.0
        found = [(-score, id) for id, score in self._long_matches(normal)] if len(normal) >= self._shortest else []
        reordered = self._reordered.get(_bag_key(normal))
        if reordered is not None and self._threshold <= _REORDERED:
            found.append((-_REORDERED, reordered))
        if not found:
            return None
        score, id = min(found)
        return id, -score

    def _long_matches(self, normal: Sequence[str]) -> list[tuple[str, float]]:
        bag = _bag(normal)
        wanted = set(bag)
        matches = []
        for position in self._index.query(self._sketch(bag)):
            other = self._bags[position]
            longer = max(len(bag), len(other))
            changed = longer - len(wanted.intersection(other))
            score = min(_REORDERED, round(1 - changed / max(_WEIGHT_FLOOR, longer), 6))
            if longer >= LONG and score >= self._threshold:
                matches.append((self._ids[position], score))
        return matches

    def _sketch(self, bag: Sequence[int]) -> MinHash:
        sketch = self._blank.copy()
        sketch.update_batch(bag)
        return sketch


def _itself(word: int) -> int:
    return word


def _bands(threshold: float) -> tuple[int, int]:
    """(bands, rows) of the LSH: as selective as `_RECALL` allows at the least overlap that can reach the threshold."""
    changed = min(_most_changed(threshold), LONG - 1)
    jaccard = (LONG - changed) / (LONG + changed)
    for rows in range(8, 1, -1):
        bands = _PERMUTATIONS // rows
        if 1 - (1 - jaccard**rows) ** bands >= _RECALL:
            return bands, rows
    return _PERMUTATIONS, 1
