"""Easy Data Augmentation (Wei and Zou 2019, arXiv 1901.11196) as far as it needs no thesaurus: random swap and random deletion.

The paper's other two operations, synonym replacement and random insertion, take synonyms from WordNet, which is a download; they
are not built. alpha is the paper's 0.1: a tenth of the words are swapped (at least one pair), or each is left out with that
probability. Operations take turns, and every draw is a hash's: the same text and number give the same row.
"""

from __future__ import annotations

import random
from hashlib import sha256

ALPHA = 0.1


def variant(text: str, number: int, seed: int) -> str:
    """The `number`th variant of a text, its words in single spaces. A text of one word comes back as it is."""
    draw = random.Random(sha256(f"{seed}\0{number}\0{text}".encode()).digest())
    words = text.split()
    return " ".join(_swapped(words, draw) if number % 2 == 0 else _thinned(words, draw))


def _swapped(words: list[str], draw: random.Random) -> list[str]:
    if len(words) < 2:
        return words
    found = list(words)
    for _ in range(max(1, int(ALPHA * len(words)))):
        one, other = draw.sample(range(len(words)), 2)
        found[one], found[other] = found[other], found[one]
    return found


def _thinned(words: list[str], draw: random.Random) -> list[str]:
    """At least one word stays, as in the paper; of a short text at least one goes, for a copy would be no new row."""
    kept = [word for word in words if draw.random() > ALPHA]
    if len(kept) == len(words) > 1:
        del kept[draw.randrange(len(kept))]
    return kept or [draw.choice(words)] if words else []
