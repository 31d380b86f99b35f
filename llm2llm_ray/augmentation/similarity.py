"""Near-duplicate search among many texts: MinHash LSH proposes, an exact count of changed words decides.

The rule. Two texts are near copies if they have the same words in another order, or if one of them is long (12 words
and more) and few words differ; short texts of one template ("What is the capital of France? / Peru?") are not. Texts
with other numbers, or the same in another order, are never copies. The order of adding changes nothing.

Rows lie in sorted arrays (segments.py), in memory or on disk; only the last few thousand are Python objects. How an
index outlives its process: row_index.py.
"""

from __future__ import annotations

import shutil
import uuid
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2llm_ray.augmentation.minhash_bands import Bands
from llm2llm_ray.augmentation.segments import (
    FIRST_BAND,
    REORDERED,
    SAME,
    Entry,
    Segment,
    Texts,
    keys_of,
    merged,
    segment_of,
    table_of,
    texts_of,
)
from llm2llm_ray.tasks.normal_form import identity, numbers, words

LONG = 12
"""Words from which a text counts as long."""
_WEIGHT_FLOOR = 20
"""A changed word costs 1/max(20, words), so that two of twelve leave 0.9, and a long text may differ in a tenth."""
_REORDERED = 0.99
"""Score of the same words in another order; 1.0 is kept for the same text."""
AHEAD = 1 << 10
"""Texts that are worth looking for at once."""
_FLUSHED_ROWS = 1 << 14
"""Rows held as Python objects before they become a segment."""
_JUDGED_AT_ONCE = 1 << 15
"""Rows that share a band with one text, where a seed set is full of near copies: bounds the memory of judging them."""
_MARGIN = 2e-6
"""More than rounding a score moves it."""


@dataclass(frozen=True, slots=True)
class Match:
    id: str
    score: float
    tag: int
    """What `add` was given with that id."""

    @property
    def rank(self) -> tuple[float, str, int]:
        return -self.score, self.id, self.tag


@dataclass(frozen=True, slots=True)
class _Known:
    """Of a text that is looked for."""

    keys: NDArray[np.uint64]
    best: Match | None
    """In the segments."""


class NearDuplicates:
    """An index of texts."""

    def __init__(self, threshold: float, seed: int = 0, *, segments: Sequence[Segment] = (), folder: Path | None = None) -> None:
        """`threshold` in (0, 1]: the score from which `find` reports; 1.0 reports nothing but the same text.

        `segments`: of an index with the same threshold and seed, whose rows count as added. With a `folder`, new segments
        are written there, and those given may be merged with them; else those given are only read.
        """
        self.threshold = threshold
        changed = _most_changed(threshold)
        self._shortest = LONG - changed
        changed = min(changed, LONG - 1)
        self.bands = Bands((LONG - changed) / (LONG + changed), seed)
        self._given, self._folder = tuple(segments), folder
        self._segments = list(segments)
        self._fixed = len(segments) if folder is None else 0
        self._known: dict[str, _Known] = {}
        """Of the texts looked for ahead."""
        self._recent: list[Entry] = []
        self._owners: dict[int, list[int]] = {}
        """Key -> numbers of recent rows; made when something is looked for, so adding many rows makes none."""
        self._keyed = 0

    def add(self, id: str, text: str, tag: int = 0) -> None:
        """Make `text` findable. Ids need not be unique: two sources may number their rows alike. `tag`: 64 bits that
        `match` gives back."""
        entry = self._entry(id, text, tag)
        if entry is None:
            return
        self._recent.append(entry)
        if len(self._recent) >= _FLUSHED_ROWS:
            self._flush()

    def find(self, text: str) -> tuple[str, float] | None:
        """(id, score) of the best match at or above the threshold; among equals the smallest id."""
        match = self.match(text)
        return None if match is None else (match.id, match.score)

    def match(self, text: str) -> Match | None:
        """`find`, with the tag of the row found."""
        wanted = self._entry("", text, 0)
        if wanted is None:
            return None
        known = self._known[text] if text in self._known else self._looked_up([wanted])[0]
        return _best((*filter(None, [known.best]), *self._in_recent(wanted, known.keys)))

    def look_ahead(self, texts: Iterable[str]) -> None:
        """Some `AHEAD` texts that `match` will be asked for, looked for at once: half the time of one by one."""
        entries = {text: entry for text in texts if (entry := self._entry("", text, 0)) is not None}
        self._known = dict(zip(entries, self._looked_up(list(entries.values())), strict=True))

    def segments(self) -> Sequence[Segment]:
        """All rows, as segments; with a folder, those in it that are still needed."""
        if self._recent:
            self._flush()
        return tuple(self._segments)

    def _entry(self, id: str, text: str, tag: int) -> Entry | None:
        """None for a text without words, which is like no other."""
        normal, same, reordered = _keys(text)
        return Entry(id, tag, same, reordered, _text_bag(text) if len(normal) >= self._shortest else None) if normal else None

    def _looked_up(self, wanted: Sequence[Entry]) -> list[_Known]:
        if not wanted:
            return []
        keys, owners = keys_of(wanted, self.bands)
        by_owner = np.argsort(owners, kind="stable")
        split = np.split(keys[by_owner], np.cumsum(np.bincount(owners))[:-1])
        best: list[Match | None] = [None] * len(wanted)
        order = np.argsort(keys)
        keys, owners = keys[order], owners[order]
        for segment in self._segments:
            starts, counts = segment.hits(keys)
            hit = np.flatnonzero(counts)
            hit = hit[np.argsort(owners[hit], kind="stable")]
            # One text at a time: in a seed set full of near copies, each has very many.
            for mine in np.split(hit, np.flatnonzero(np.diff(owners[hit])) + 1) if len(hit) else ():
                number, tables = int(owners[mine[0]]), np.repeat(table_of(keys[mine]), counts[mine])
                rows = segment.owners_of(starts[mine], counts[mine])
                found = self._matches(segment.texts, tables, rows, wanted[number])
                best[number] = _best((*filter(None, [best[number]]), *found))
        return [_Known(mine, match) for mine, match in zip(split, best, strict=True)]

    def _in_recent(self, wanted: Entry, keys: NDArray[np.uint64]) -> list[Match]:
        self._key_recent()
        hits = [
            (table, number)
            for table, key in zip(table_of(keys), keys.tolist(), strict=True)
            for number in self._owners.get(key, ())
        ]
        if not hits:
            return []
        near = sorted({number for _, number in hits})
        at = {number: position for position, number in enumerate(near)}
        tables, positions = np.array([(table, at[number]) for table, number in hits]).T
        return list(self._matches(texts_of([self._recent[number] for number in near]), tables, positions, wanted))

    def _matches(self, texts: Texts, tables: NDArray[Any], owners: NDArray[Any], wanted: Entry) -> Iterator[Match]:
        """The best matches among these hits, and all others that could be the best of the index."""
        for number in texts.with_key("same", wanted.same, owners[tables == SAME]):
            yield Match(texts.id(number), 1.0, int(texts.facts["tag"][number]))
        if self.threshold <= _REORDERED:
            for number in texts.with_key("reordered", wanted.reordered, owners[tables == REORDERED]):
                yield Match(texts.id(number), _REORDERED, int(texts.facts["tag"][number]))
        near = np.unique(owners[tables >= FIRST_BAND])
        for start in range(0, len(near), _JUDGED_AT_ONCE):
            assert wanted.bag is not None, "only long texts have bands"
            yield from self._long_matches(texts, near[start : start + _JUDGED_AT_ONCE], wanted.bag)

    def _long_matches(self, texts: Texts, near: NDArray[Any], bag: array[int]) -> Iterator[Match]:
        longer = np.maximum(texts.facts["length"][near].astype(np.int64), len(bag))
        changed = longer - texts.common(bag, near)
        scores = np.where(longer >= LONG, 1 - changed / np.maximum(_WEIGHT_FLOOR, longer), 0)
        best = min(_REORDERED, scores.max())
        for place in np.flatnonzero(scores >= max(best, self.threshold) - _MARGIN).tolist():
            # Rounded as Python does, which numpy's rounding can miss by a digit.
            score = min(_REORDERED, round(1 - int(changed[place]) / max(_WEIGHT_FLOOR, int(longer[place])), 6))
            if score >= self.threshold:
                yield Match(texts.id(near[place]), score, int(texts.facts["tag"][near[place]]))

    def _key_recent(self) -> None:
        """Make the rows added since findable."""
        if self._keyed < len(self._recent):
            keys, owners = keys_of(self._recent[self._keyed :], self.bands)
            for key, owner in zip(keys.tolist(), owners.tolist(), strict=True):
                self._owners.setdefault(key, []).append(owner + self._keyed)
            self._keyed = len(self._recent)

    def _flush(self) -> None:
        self._segments.append(segment_of(self._recent, self.bands, self._new_folder()))
        self._recent, self._owners, self._keyed = [], {}, 0
        self._known = {}
        # Each at least twice as long as the next: few segments, and a row is moved as often as the rows double.
        first, rows = len(self._segments) - 1, len(self._segments[-1])
        while first > self._fixed and len(self._segments[first - 1]) < 2 * rows:
            first -= 1
            rows += len(self._segments[first])
        small = self._segments[first:]
        if len(small) > 1:
            self._segments[first:] = [merged(small, self.bands, self._new_folder())]
            for segment in small:
                if segment.folder is not None and all(segment is not given for given in self._given):
                    shutil.rmtree(segment.folder)

    def _new_folder(self) -> Path | None:
        return None if self._folder is None else self._folder / uuid.uuid4().hex


def _best(matches: Iterable[Match]) -> Match | None:
    return min(matches, key=lambda match: match.rank, default=None)


@lru_cache(maxsize=2 * AHEAD)
def _keys(text: str) -> tuple[tuple[str, ...], bytes, bytes]:
    """(words, key of the text, key of its words). A commit asks for the same text up to five times."""
    normal = words(text)
    return normal, _same_key(normal), _bag_key(normal)


@lru_cache(maxsize=2 * AHEAD)
def _text_bag(text: str) -> array[int]:
    return _bag(_keys(text)[0])


def _same_key(normal: Sequence[str]) -> bytes:
    return blake2b(identity(normal).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _bag_key(normal: Sequence[str]) -> bytes:
    return _same_key((*sorted(w + " " for w in normal), *numbers(normal)))


def _bag(normal: Sequence[str]) -> array[int]:
    """One 32-bit number per word and occurrence. The text's numbers are hashed into every word: texts with other
    numbers share nothing, so a template with many fillings does not crowd the index."""
    salt = blake2b(" ".join(numbers(normal)).encode(), digest_size=16).digest()
    seen: Counter[str] = Counter()
    bag: array[int] = array("I")
    for word in normal:
        seen[word] += 1
        digest = blake2b(f"{word} {seen[word]}".encode("utf-8", "surrogatepass"), digest_size=4, salt=salt).digest()
        bag.append(int.from_bytes(digest))
    return bag


def _most_changed(threshold: float) -> int:
    """Words that may differ in a text of `LONG` words."""
    return int((1 - threshold) * _WEIGHT_FLOOR + 1e-6)
