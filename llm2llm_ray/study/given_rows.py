"""Rows for the methods that ask no model: for each seed, in the order in which they are taken. Pure; all draws are hashes.

They are written to a file that `teacher.kind: rows` reads, so they go through the same gates as a teacher's.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256

from llm2llm_ray.study.eda import variant
from llm2llm_ray.study.methods import Given
from llm2llm_ray.tasks.normal_form import words
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

_NEAR = 64
"""Rows of the pool that are ranked for a seed; more than any round asks for one."""


def rows_file(given: Given, seeds: Sequence[Example], unused: Sequence[Example], task: Task, *, each: int, draw: int) -> bytes:
    """Lines {"seed": id of the seed, "input", "output"}. `each`: rows for a seed. `unused`: real rows that are no seed, in the
    order of the draw; only `more_real` and `pool` need them."""
    makers: Mapping[str, Callable[[], Iterator[tuple[Example, str, str]]]] = {
        "duplicated": lambda: ((seed, seed.input, seed.output) for seed in seeds for _ in range(each)),
        "eda": lambda: ((seed, variant(seed.input, n, draw), seed.output) for seed in seeds for n in range(each)),
        "more_real": lambda: _more_real(seeds, unused, each),
        "pool": lambda: _nearest(seeds, unused, task, each),
    }
    lines = [{"seed": seed.id, "input": text, "output": output} for seed, text, output in makers[given]()]
    return "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines).encode()


def _more_real(seeds: Sequence[Example], unused: Sequence[Example], each: int) -> Iterator[tuple[Example, str, str]]:
    """The draw's next rows, whatever their class, dealt to the seeds in turn: the seed says only when a row is taken."""
    dealt = unused[: each * len(seeds)]
    for place, seed in enumerate(seeds):
        yield from ((seed, row.input, row.output) for row in dealt[place :: len(seeds)])


def _nearest(seeds: Sequence[Example], unused: Sequence[Example], task: Task, each: int) -> Iterator[tuple[Example, str, str]]:
    """For each seed in turn the nearest row of its class that no other seed has yet, until each has `each`.

    Nearness is the cosine of word counts weighted by log(rows / rows with the word): rare words say what a text is about.
    """
    vectors = _Weighted([*seeds, *unused])
    groups: dict[str, list[Example]] = {}
    for row in unused:
        groups.setdefault(task.group(row), []).append(row)
    ranked = {seed.id: vectors.nearest(seed, groups.get(task.group(seed), ())) for seed in seeds}
    taken: set[str] = set()
    for _ in range(min(each, _NEAR)):
        for seed in seeds:
            found = next((row for row in ranked[seed.id] if row.id not in taken), None)
            if found is not None:
                taken.add(found.id)
                yield seed, found.input, found.output


class _Weighted:
    def __init__(self, rows: Sequence[Example]) -> None:
        counts = {row.id: Counter(words(row.input)) for row in rows}
        holding = Counter(word for found in counts.values() for word in found)
        self._vectors = {
            row_id: {word: n * math.log(len(rows) / holding[word]) for word, n in found.items()}
            for row_id, found in counts.items()
        }

    def nearest(self, seed: Example, rows: Sequence[Example]) -> list[Example]:
        """The nearest first; of equals in an order that hangs on the ids only."""
        return sorted(rows, key=lambda row: (-self._cosine(seed.id, row.id), sha256(f"{seed.id}/{row.id}".encode()).digest()))

    def _cosine(self, one: str, other: str) -> float:
        a, b = self._vectors[one], self._vectors[other]
        shared = math.fsum(weight * b[word] for word, weight in a.items() if word in b)
        lengths = math.sqrt(math.fsum(x * x for x in a.values()) * math.fsum(x * x for x in b.values()))
        return shared / lengths if lengths else 0.0
