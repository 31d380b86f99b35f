"""Dev and test rows, and whether a text is one of them or a near copy: every row is compared, so nothing is missed.

The rule. Two texts are near copies if they have the same words in another order, or, from four words on, if few words
differ: one of 4 to 9, two of 10 to 14, a fifth of longer ones at a threshold of 0.8. Numbers are words like others. One
word that differs makes another text only where real rows show that it is a slot: "What is the capital of _ ?" stands in
two further held-out or known rows with other words, which are not forms of one word. docs/contamination.md has the
measurements behind these numbers. The order of rows changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from functools import lru_cache
from hashlib import blake2b
from heapq import nsmallest
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from llm2llm_ray.tasks.normal_form import identity, words
from llm2llm_ray.types import Example

_SHORTEST = 4
"""Words of the longer text from which one may differ: among real questions of three words most differ in one."""
_WEIGHT_FLOOR = 5
"""A changed word costs 1/max(5, words): one of four leaves 0.8 as one of five does."""
_SHORTEST_TEMPLATE = 5
"""Words from which a text may be one of a template: "What is a _" is shorter, and stands for most questions of its length."""
_OTHER_FILLS = 2
_FORMS = 0.8
"""Likeness of spelling from which two words are forms of one: "year" and "years"."""
_REORDERED = 0.99
"""Score of the same words in another order; 1.0 is kept for the same text."""

_OPERATORS = frozenset("-*/\N{MINUS SIGN}\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}")
"""That Unicode calls punctuation, and that are words between numbers."""

_KNOWN = 20_000
"""Known rows that are looked at, of more a sample: a template worth the name has many fillings."""

Token = tuple[str, int]
"""A word and which of its occurrences: a text is a set of these."""


class HeldOut:
    """Dev and test rows to keep away from.

    Example: HeldOut([Example(id="t-1", input="What county is Modesto in ?", output="LOC")], 0.8).find("Which county is
    Modesto in?") is ("t-1", 0.8)
    """

    def __init__(self, rows: Iterable[Example], threshold: float, known: Iterable[Example] = ()) -> None:
        """`threshold` in (0, 1]: the score from which `find` reports; 1.0 reports nothing but the same text. `known`: real
        rows that may be near to held-out ones, such as the seeds; they show which words are slots of a template."""
        self.threshold = threshold
        self._ids: list[str] = []
        self._same: dict[str, str] = {}
        self._bags: list[frozenset[Token]] = []
        places: dict[Token, list[int]] = defaultdict(list)
        for row in rows:
            key, bag = identity(words(row.input)), _bag(row.input)
            if not bag:
                continue
            self._same[key] = min(row.id, self._same.get(key, row.id))
            for token in bag:
                places[token].append(len(self._ids))
            self._ids.append(row.id)
            self._bags.append(bag)
        self._places = {token: np.array(found, np.int64) for token, found in places.items()}
        self._lengths = np.array([len(bag) for bag in self._bags], np.int64)
        self._fills: dict[tuple[int, Token], set[str]] = defaultdict(set)
        """(row, its word) -> the words that known rows have in its place."""
        for row in nsmallest(_KNOWN, known, key=_rank):
            for number, lost, got in self._swaps(_bag(row.input)):
                self._fills[number, lost].add(got[0])

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, text: str) -> tuple[str, float] | None:
        """(id, score) of the best match at or above the threshold; among equals the smallest id."""
        same = self._same.get(identity(words(text)))
        if same is not None:
            return same, 1.0
        bag = _bag(text)
        changed = self._changed(bag)
        found = []
        scores = self._scores(changed, bag)
        near = np.flatnonzero(scores >= self.threshold).tolist()
        others = self._other_fills(bag, changed) if near else {}
        for number in near:
            if changed[number] != 1 or not self._is_slot(number, bag, others):
                found.append((-float(scores[number]), self._ids[number]))
        return (min(found)[1], -min(found)[0]) if found else None

    def _changed(self, bag: frozenset[Token]) -> NDArray[np.int64]:
        """Per row, the words of the longer text that the other has not."""
        lists = [self._places[token] for token in bag if token in self._places]
        common = np.bincount(np.concatenate(lists), minlength=len(self._ids)) if lists else np.zeros(len(self._ids), np.int64)
        changed: NDArray[np.int64] = np.maximum(self._lengths, len(bag)) - common
        return changed

    def _scores(self, changed: NDArray[np.int64], bag: frozenset[Token]) -> NDArray[np.float64]:
        longer = np.maximum(self._lengths, len(bag))
        scores = np.round(np.minimum(_REORDERED, 1 - changed / np.maximum(_WEIGHT_FLOOR, longer)), 6)
        return np.where((changed == 0) | (longer >= _SHORTEST), scores, 0)

    def _swaps(self, bag: frozenset[Token], changed: NDArray[np.int64] | None = None) -> Iterator[tuple[int, Token, Token]]:
        """(row, its word, the text's word) for rows that differ from a text in one word, in either one."""
        if len(bag) < _SHORTEST_TEMPLATE or not self._ids:
            return
        changed = self._changed(bag) if changed is None else changed
        for number in np.flatnonzero((changed == 1) & (self._lengths == len(bag))).tolist():
            (lost,), (got,) = self._bags[number] - bag, bag - self._bags[number]
            yield number, lost, got

    def _other_fills(self, bag: frozenset[Token], changed: NDArray[np.int64]) -> dict[Token, set[str]]:
        """The text's word -> the words that held-out rows have in its place."""
        fills: dict[Token, set[str]] = defaultdict(set)
        for _, lost, got in self._swaps(bag, changed):
            fills[got].add(lost[0])
        return fills

    def _is_slot(self, number: int, bag: frozenset[Token], others: dict[Token, set[str]]) -> bool:
        """Whether the one word in which this row differs from a text is the slot of a template."""
        lost, got = self._bags[number] - bag, bag - self._bags[number]
        if len(lost) != 1 or len(got) != 1 or len(bag) < _SHORTEST_TEMPLATE:
            return False
        (mine,), (theirs,) = lost, got
        fills = (others[theirs] | self._fills.get((number, mine), set())) - {mine[0], theirs[0]}
        enough = 1 if _is_number(mine[0]) and _is_number(theirs[0]) else _OTHER_FILLS
        return len(fills) >= enough and not _are_forms(mine[0], theirs[0])


def _rank(row: Example) -> bytes:
    """The same sample whatever the order of rows."""
    return blake2b(row.input.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _bag(text: str) -> frozenset[Token]:
    seen: dict[str, int] = defaultdict(int)
    bag = []
    for word in _spaced_words(text):
        bag.append((word, seen[word]))
        seen[word] += 1
    return frozenset(bag)


def _spaced_words(text: str) -> Iterator[str]:
    """Words as a person counts them, between spaces: "well-acted", "U.S." and "$5" are one each, "2 + 3" is three."""
    pieces = text.split()
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=False):
        if any(char.isalnum() or category(char)[0] == "S" for char in piece) or (piece in _OPERATORS and following[:1].isdigit()):
            yield _joined(piece)


@lru_cache(maxsize=1 << 16)
def _joined(piece: str) -> str:
    return "".join(words(piece))


def _are_forms(one: str, other: str) -> bool:
    """Forms of one word, or a misspelling; two numbers are never."""
    if _is_number(one) or _is_number(other):
        return False
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= _FORMS


def _is_number(word: str) -> bool:
    return any(char.isdecimal() for char in word)
