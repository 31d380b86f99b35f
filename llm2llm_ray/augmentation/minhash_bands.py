"""MinHash bands of many word bags at once: two bags that share enough words share a band almost surely.

The permutations and the numbers are datasketch's own (a test compares them); many bags in
one array is what its one-sketch-at-a-time interface cannot do. Same bags, same bands: on every machine, in any order.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

_PERMUTATIONS = 128
_RECALL = 0.995
"""Of pairs that lie just at the least similarity; nearer ones are found almost surely."""
_BATCH_WORDS = 1 << 10
"""Words worked on at a time: they stay in the processor's cache."""


class Bands:
    def __init__(self, jaccard: float, seed: int = 0) -> None:
        """As selective as `_RECALL` allows at bags of that Jaccard similarity."""
        self.bands, self.rows = _shape(jaccard)
        self._factors, self._offsets = MinHash(num_perm=_PERMUTATIONS, seed=seed + 1, scheme="affine32").permutations

    @property
    def fingerprint(self) -> str:
        """Other for bands that cannot be compared with these."""
        told = f"{self.bands} {self.rows} ".encode() + self._factors.tobytes() + self._offsets.tobytes()
        return sha256(told).hexdigest()[:16]

    def signatures(self, bags: Sequence[array[int]]) -> NDArray[np.uint32]:
        """One row of `bands` * `rows` minima per bag; no bag may be empty."""
        used = self.bands * self.rows
        found = np.empty((len(bags), used), np.uint32)
        first = 0
        while first < len(bags):
            last, starts, size = first, [], 0
            while last < len(bags) and (size == 0 or size + len(bags[last]) <= _BATCH_WORDS):
                starts.append(size)
                size += len(bags[last])
                last += 1
            words = _mixed(np.frombuffer(b"".join(bags[first:last]), np.uint32))
            permuted = words[:, None] * self._factors[:used]
            permuted += self._offsets[:used]
            np.minimum.reduceat(permuted, starts, axis=0, out=found[first:last])
            first = last
        return found

    def hashes(self, bags: Sequence[array[int]]) -> NDArray[np.uint64]:
        """(bags, bands): one 64-bit number per bag and band."""
        minima = self.signatures(bags).reshape(len(bags), self.bands, self.rows).astype(np.uint64)
        mixed = np.full((len(bags), self.bands), 0x9E3779B97F4A7C15, np.uint64)
        for row in range(self.rows):
            # A bijection for each value, so that other minima meet by chance only.
            mixed = (mixed ^ minima[:, :, row]) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
        return mixed


def _shape(jaccard: float) -> tuple[int, int]:
    """(bands, rows)"""
    for rows in range(8, 1, -1):
        bands = _PERMUTATIONS // rows
        if 1 - (1 - jaccard**rows) ** bands >= _RECALL:
            return bands, rows
    return _PERMUTATIONS, 1


def _mixed(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's finalizer, as datasketch's `affine32` applies it before the permutations."""
    words = words ^ (words >> np.uint32(16))
    words = words * np.uint32(0x85EBCA6B)
    words = words ^ (words >> np.uint32(13))
    words = words * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))
