"""Which rows become seeds: none that a dev or test row leaks into, and no text with two answers.

A seed file taken whole must be clean: a test row in it is an error, and so is one text with two answers; near copies of
dev and test rows may be rows of their own, so they are told. Where seeds are drawn, all of these are passed over and
counted. Draws depend on `sample_seed` and the rows' content, not on the order of a file.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from unicodedata import normalize

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.normal_form import identity, words
from llm2llm_ray.tasks.rows import shown
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

Finder = Callable[[str], tuple[str, float] | None]
"""A text -> (id, score) of the held-out row that it is near to."""
NearCopies = Callable[[Sequence[Example], Sequence[Example]], Finder]
"""(held-out rows, real rows) -> a finder; a port, because the measure is the gate's (augmentation/held_out.py)."""


@dataclass(frozen=True)
class Placed:
    """A row and where it stands."""

    example: Example
    where: str

    @cached_property
    def key(self) -> str:
        """The same for texts that count as equal."""
        return identity(words(self.example.input))

    @property
    def told(self) -> str:
        return f"{self.where}: {shown(self.example.input)}"


@dataclass(frozen=True, slots=True)
class Seeds:
    rows: list[Example]
    counts: dict[str, int]
    notices: list[str] = field(default_factory=list)
    """What a person should look at, one row each."""


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    dev: Sequence[Placed]
    test: Sequence[Placed]
    near: NearCopies | None
    """None looks for equal texts only."""

    def finder(self, known: Sequence[Placed]) -> Callable[[Placed], str | None]:
        """A row -> what to say of a near copy of a dev or test row."""
        if self.near is None:
            return lambda item: None
        places = {item.example.id: item for item in (*self.dev, *self.test)}
        find = self.near([item.example for item in places.values()], [item.example for item in known])

        def told(item: Placed) -> str | None:
            found = find(item.example.input)
            if found is None:
                return None
            row = places[found[0]]
            return f"{item.told} is near ({found[1]:.2f}) to {shown(row.example.input)} ({row.where})"

        return told


def whole(seed: Sequence[Placed], held_out: HeldOutRows, task: Task) -> Seeds:
    """All rows of a seed file; raises UserError."""
    _no_test_row(seed, held_out.test)
    _one_answer_each(seed, task)
    near = held_out.finder(seed)
    copies = [told for item in seed if (told := near(item)) is not None]
    groups = _by_text(seed)
    conflicts = [
        f"{rows[0].told} is {shown(rows[0].example.output)}, and with other case or punctuation {other.where} says "
        f"{shown(other.example.output)}"
        for rows in groups.values()
        if (other := _contradiction(rows, task)) is not None
    ]
    counts = {"near_held_out": len(copies), "repeats": len(seed) - len(groups)}
    return Seeds([item.example for item in seed], counts, [*copies, *conflicts])


def drawn(seed: Sequence[Placed], held_out: HeldOutRows, config: TaskConfig, task: Task, place: str) -> Seeds:
    """As many rows as the config asks for; raises UserError."""
    leaks = {item.key for item in (*held_out.dev, *held_out.test)}
    clean = [item for item in seed if item.key not in leaks]
    groups = _by_text(clean)
    answered = {key: rows for key, rows in groups.items() if _contradiction(rows, task) is None}
    unique: dict[str, Placed] = {}
    for item in shuffled((item for item in clean if item.key in answered), config.sample_seed):
        unique.setdefault(item.key, item)
    pool = list(unique.values())
    near = held_out.finder(pool)
    passed: list[str] = []

    def usable(items: Iterable[Placed]) -> Iterator[Example]:
        for item in items:
            told = near(item)
            if told is None:
                yield item.example
            else:
                passed.append(f"passed over: {told}")

    rows = _taken(pool, usable, config, task, place)
    answered_rows = sum(map(len, answered.values()))
    counts = {
        "leaked_removed": len(seed) - len(clean),
        "conflicting_removed": len(clean) - answered_rows,
        "duplicates_removed": answered_rows - len(unique),
        "near_removed": len(passed),
    }
    return Seeds(rows, counts, passed)


def _no_test_row(seed: Sequence[Placed], test: Sequence[Placed]) -> None:
    places = {item.key: item for item in test}
    equal = [item for item in seed if item.key in places]
    if equal:
        first = equal[0]
        raise UserError(
            f"{first.told} is also a test row ({places[first.key].where}){_more(equal)}: "
            "remove it from one, or draw seeds with task.seed_rows or task.seeds_per_class, which skips such rows"
        )


def _one_answer_each(seed: Sequence[Placed], task: Task) -> None:
    """Texts that read the same: in a text that differs in case or punctuation, that may be what the answer is about."""
    groups: dict[str, list[Placed]] = defaultdict(list)
    for item in seed:
        groups[" ".join(normalize("NFC", item.example.input).split())].append(item)
    conflicting = [(rows[0], other) for rows in groups.values() if (other := _contradiction(rows, task)) is not None]
    if conflicting:
        first, other = conflicting[0]
        raise UserError(
            f"{first.told} is {shown(first.example.output)}, but the same text is {shown(other.example.output)} in "
            f"{other.where}{_more(conflicting)}: correct or remove one of them, or draw seeds with task.seed_rows or "
            "task.seeds_per_class, which leaves such texts out"
        )


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _contradiction(rows: Sequence[Placed], task: Task) -> Placed | None:
    """The first that the task's grader calls wrong by the gold of the first row; two ways to one result are none."""
    gold = rows[0].example.output
    return next((item for item in rows[1:] if not task.is_correct(gold, task.completion(item.example.output))), None)


def _by_text(items: Iterable[Placed]) -> dict[str, list[Placed]]:
    groups: dict[str, list[Placed]] = defaultdict(list)
    for item in items:
        groups[item.key].append(item)
    return groups


def one_answer(items: Iterable[Placed], task: Task, sample_seed: int) -> list[Placed]:
    """Rows whose text has one answer only, shuffled; repeats stay."""
    groups = _by_text(items)
    return shuffled((item for rows in groups.values() if _contradiction(rows, task) is None for item in rows), sample_seed)


def shuffled(items: Iterable[Placed], sample_seed: int) -> list[Placed]:
    """By hash of content: the same whatever the order of the file."""

    def rank(item: Placed) -> str:
        content = f"{sample_seed}\0{item.example.input}\0{item.example.output}\0{item.example.id}"
        return hashlib.sha256(content.encode()).hexdigest()

    return sorted(items, key=rank)


def _taken(
    pool: Sequence[Placed], usable: Callable[[Iterable[Placed]], Iterator[Example]], config: TaskConfig, task: Task, place: str
) -> list[Example]:
    without = "(without repeats, texts with two answers, and dev or test rows and their near copies)"
    if config.seed_rows:
        rows = list(islice(usable(pool), config.seed_rows))
        if len(rows) < config.seed_rows:
            raise UserError(
                f"task.seed_rows: {config.seed_rows} wanted, but {place} has {len(rows)} usable rows {without}: lower it"
            )
        return rows
    wanted = config.seeds_per_class or 0
    groups = grouped(pool, task)
    labels = task.labels if isinstance(task, Classification) else tuple(groups)
    chosen = {label: list(islice(usable(groups.get(label, [])), wanted)) for label in labels}
    short = [f"{label} {len(rows)}" for label, rows in chosen.items() if len(rows) < wanted]
    if short:
        raise UserError(
            f"task.seeds_per_class: {wanted} wanted, but {place} has fewer usable rows of: {', '.join(short)} "
            f"{without}: lower it or add rows"
        )
    ids = {row.id for rows in chosen.values() for row in rows}
    return [item.example for item in pool if item.example.id in ids]


def grouped(items: Iterable[Placed], task: Task) -> Mapping[str, list[Placed]]:
    groups: dict[str, list[Placed]] = defaultdict(list)
    for item in items:
        groups[task.group(item.example)].append(item)
    return dict(groups)
