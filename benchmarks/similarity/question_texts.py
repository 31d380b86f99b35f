"""As many questions as wanted, made from TREC's and GSM8K's, as a seed set that grows: mostly new texts, some of one template
with other numbers or names, some near copies of an earlier row, few copies of one. Row k is the same whatever is read before.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from llm2llm_ray.types import Example

_KINDS = (("new", 0.62), ("template", 0.18), ("near", 0.15), ("reordered", 0.02), ("copy", 0.03))


class Questions:
    def __init__(self, data: Path) -> None:
        self._data = data
        self._base = self._texts("train")
        self._words = sorted({word for text in self._base for word in text.split() if word.isalpha() and len(word) > 3})

    def rows(self, first: int, count: int, prefix: str = "s") -> Iterator[Example]:
        for k in range(first, first + count):
            yield Example(id=f"{prefix}-{k}", input=self.text(k), output=f"label {k % 6}")

    def held_out(self) -> list[str]:
        return self._texts("test")

    def text(self, k: int) -> str:
        draw = random.Random(k)
        (kind,) = draw.choices([kind for kind, _ in _KINDS], [share for _, share in _KINDS])
        if kind in ("new", "template") or k == 0:
            words = draw.choice(self._base).split()
            return self._template(words, draw) if kind == "template" else self._new(words, draw)
        words = self.text(draw.randrange(k)).split()
        if kind == "near":
            words[draw.randrange(len(words))] = draw.choice(self._words)
        elif kind == "reordered":
            words = words[len(words) // 2 :] + words[: len(words) // 2]
        return " ".join(words)

    def _texts(self, split: str) -> list[str]:
        files = (("trec", "text"), ("gsm8k", "question"))
        return [row[key] for name, key in files for row in _rows(self._data / name / f"{split}.jsonl")]

    def _new(self, words: list[str], draw: random.Random) -> str:
        """Half of the longer words are others."""
        return " ".join(
            draw.choice(self._words) if len(word) > 3 and draw.random() < 0.5 else _renumbered(word, draw) for word in words
        )

    def _template(self, words: list[str], draw: random.Random) -> str:
        """Other numbers; without numbers, two other words."""
        found = [_renumbered(word, draw) for word in words]
        if found == words:
            for _ in range(2):
                found[draw.randrange(len(found))] = draw.choice(self._words)
        return " ".join(found)


def _renumbered(word: str, draw: random.Random) -> str:
    return re.sub(r"\d+", lambda number: str(draw.randrange(2, 10 ** len(number[0]) + 10)), word)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]
