"""One edit at a time of a text's tokens, as a near copy of a test row may differ from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from llm2llm_ray.tasks.normal_form import same_text

Edit = Callable[[list[str], random.Random, Sequence[str]], list[str]]
"""(the text's tokens, a source of chance, words that may come in) -> the edited text's tokens."""


def _at(tokens: Sequence[str], draw: random.Random) -> int:
    """The place of a word: TREC's question marks stand alone and are none."""
    places = [place for place, token in enumerate(tokens) if any(char.isalnum() for char in token)]
    return draw.choice(places or list(range(len(tokens))))


def _other(than: str, draw: random.Random, vocabulary: Sequence[str]) -> str:
    while True:
        word = draw.choice(vocabulary)
        if not same_text(word, than):
            return word


def replaced(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    place = _at(tokens, draw)
    return [*tokens[:place], _other(tokens[place], draw, vocabulary), *tokens[place + 1 :]]


def inserted(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    place = draw.randrange(len(tokens) + 1)
    return [*tokens[:place], draw.choice(vocabulary), *tokens[place:]]


def deleted(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    place = _at(tokens, draw)
    return [*tokens[:place], *tokens[place + 1 :]] if len(tokens) > 1 else tokens


def two_replaced(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    first = _at(tokens, draw)
    others = [place for place, token in enumerate(tokens) if place != first and any(char.isalnum() for char in token)]
    changed = list(tokens)
    for place in (first, draw.choice(others or [first])):
        changed[place] = _other(tokens[place], draw, vocabulary)
    return changed


def reordered(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """The end in front: "in the area find movies"."""
    place = draw.randrange(1, max(2, len(tokens)))
    return [*tokens[place:], *tokens[:place]]


def upper(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    return [token.upper() for token in tokens]


def punctuated(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    """No sentence marks where there were, others where there were none."""
    marks = '?!,;:"'
    bare = [stripped for token in tokens if (stripped := token.strip(marks).removesuffix("."))]
    place = draw.randrange(len(bare)) if bare else 0
    return [*bare[:place], *(f'"{word}",' for word in bare[place : place + 1]), *bare[place + 1 :], "!"]


def plural(tokens: list[str], draw: random.Random, vocabulary: Sequence[str]) -> list[str]:
    places = [place for place, token in enumerate(tokens) if len(token) > 2 and token.isalpha()]
    if not places:
        return replaced(tokens, draw, vocabulary)
    changed, place = list(tokens), draw.choice(places)
    word = changed[place]
    if word.endswith("s"):
        changed[place] = word[:-1]
    elif word.endswith(("ch", "sh", "x")):
        changed[place] = f"{word}es"
    else:
        changed[place] = f"{word[:-1]}ies" if word.endswith("y") and word[-2] not in "aeiou" else f"{word}s"
    return changed


EDITS: dict[str, Edit] = {
    "one word replaced": replaced, "one inserted": inserted, "one deleted": deleted, "two replaced": two_replaced,
    "order": reordered, "case": upper, "punctuation": punctuated, "plural": plural,
}  # fmt: skip
ONE_WORD = ("one word replaced", "one inserted", "one deleted")
