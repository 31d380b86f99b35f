"""Which rows are seeds, dev and test: found, read, cleaned of leaks and drawn.

Draws depend on `sample_seed` and the rows' content, not on the order of a file, and never take a seed that equals
(case, punctuation and white space aside) a dev or test row. A seed file taken whole must be clean: a test row in it is
an error.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.tasks.rows import Row, read_rows, shown
from llm2llm_ray.tasks.sources import Source, find_sources
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows of a run. Dev and test may be empty; dev and test rows have the origin `dev`."""

    seed: list[Example]
    dev: list[Example]
    test: list[Example]
    counts: Mapping[str, int]
    """Rows read and used per split (`seed_read`, `seed`, ...) and what was left out: `leaked_removed` (equal a dev or
    test row) and `duplicates_removed` from the seed pool when seeds are drawn, `dev_leaked_removed` (equal a test row);
    and what the task counts of the used rows (casehold: `seed_cut`, `dev_cut`, `test_cut`).
    """
    sources: Mapping[str, str] = field(default_factory=dict)
    """Split -> the file or hub split it was read from."""


@dataclass(frozen=True, slots=True)
class _Placed:
    example: Example
    where: str

    @property
    def key(self) -> str:
        return same_text(self.example.input)


def load_splits(task_config: TaskConfig, task: Task, *, base_dir: str | Path) -> tuple[Task, Splits]:
    """The task (its label set fixed) and its rows; raises UserError.

    A relative path is looked up in the current directory, then in `base_dir` (the config file's folder).
    """
    sources = find_sources(task_config, base_dir)
    rows = {name: _read(source, task_config, task) for name, source in sources.items()}
    if isinstance(task, Classification) and not task.labels:
        task = _with_labels_of(task, rows["seed"])
    placed: dict[str, list[_Placed]] = {}
    for name, found in rows.items():
        taken = {item.example.id for items in placed.values() for item in items}
        placed[name] = _examples(task, found, role=name, taken=taken)
    seed, dev, test = (placed.get(name, []) for name in ("seed", "dev", "test"))
    test_keys = {item.key for item in test}
    clean_dev = [item for item in dev if item.key not in test_keys]
    counts = {f"{name}_read": len(items) for name, items in placed.items()}
    counts["dev_leaked_removed"] = len(dev) - len(clean_dev)
    if task_config.seeds_per_class or task_config.seed_rows:
        pool = _pool(seed, {item.key for item in (*dev, *test)}, task_config.sample_seed, counts)
        seeds = _drawn_seeds(pool, task_config, task, sources["seed"].place)
    else:
        _no_test_row_in(seed, test)
        seeds = [item.example for item in seed]
    splits = Splits(
        seed=seeds,
        dev=_capped(clean_dev, task_config.dev_rows, task, task_config.sample_seed),
        test=_capped(test, task_config.test_rows, task, task_config.sample_seed),
        counts=counts,
        sources={name: source.place for name, source in sources.items()},
    )
    for name, used in (("seed", splits.seed), ("dev", splits.dev), ("test", splits.test)):
        counts[name] = len(used)
        counts.update({f"{name}_{what}": number for what, number in task.counts(used).items()})
    return task, splits


class _Letters(dict[int, int | None]):
    """str.translate table that drops punctuation and white space; filled as characters are met."""

    def __missing__(self, char: int) -> int | None:
        dropped = unicodedata.category(chr(char))[0] in "PZ" or chr(char).isspace()
        self[char] = None if dropped else char
        return self[char]


_LETTERS = _Letters()


def same_text(text: str) -> str:
    """What two texts have in common when they count as equal: lower case, no punctuation, no white space."""
    return text.lower().translate(_LETTERS) or text


def _read(source: Source, config: TaskConfig, task: Task) -> list[tuple[str, Row]]:
    rows = read_rows(source.path, split=source.split, columns=config.columns, needed=task.columns)
    return [(f"{source.place}, line {line}", row) for line, row in rows]


def _with_labels_of(task: Classification, rows: Sequence[tuple[str, Row]]) -> Classification:
    labels = {str(row["label"]).strip() for _, row in rows if isinstance(row["label"], str | int)}
    try:
        return task.with_labels(sorted(labels))
    except ValueError as error:
        place = rows[0][0].rpartition(",")[0]
        raise UserError(f"{place}: {error}, or list the labels in task.options.labels") from None


def _examples(task: Task, rows: Sequence[tuple[str, Row]], *, role: str, taken: set[str]) -> list[_Placed]:
    """Files whose ids all begin at 0 are common: an id that an earlier split has gets the role in front."""
    placed = []
    for where, row in rows:
        row_id = str(row["id"])
        try:
            example = task.example(row, f"{role}-{row_id}" if row_id in taken else row_id)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        placed.append(_Placed(replace(example, origin="seed" if role == "seed" else "dev"), where))
    return placed


def _no_test_row_in(seed: Sequence[_Placed], test: Sequence[_Placed]) -> None:
    places = {item.key: item for item in test}
    equal = [item for item in seed if item.key in places]
    if equal:
        more = f" (and {len(equal) - 1} more)" if len(equal) > 1 else ""
        first = equal[0]
        raise UserError(
            f"{first.where}: {shown(first.example.input)} is also a test row ({places[first.key].where}){more}: "
            "remove it from one, or draw seeds with task.seed_rows or task.seeds_per_class, which skips such rows"
        )


def _pool(seed: Sequence[_Placed], held_out: set[str], sample_seed: int, counts: dict[str, int]) -> list[_Placed]:
    """Rows that may be drawn, in drawing order: one of each text, none of dev or test."""
    clean = [item for item in seed if item.key not in held_out]
    unique: dict[str, _Placed] = {}
    for item in _shuffled(clean, sample_seed):
        unique.setdefault(item.key, item)
    counts["leaked_removed"] = len(seed) - len(clean)
    counts["duplicates_removed"] = len(clean) - len(unique)
    return list(unique.values())


def _shuffled(items: Iterable[_Placed], sample_seed: int) -> list[_Placed]:
    """By hash of content: the same whatever the order of the file."""

    def rank(item: _Placed) -> str:
        content = f"{sample_seed}\0{item.example.input}\0{item.example.output}\0{item.example.id}"
        return hashlib.sha256(content.encode()).hexdigest()

    return sorted(items, key=rank)


def _drawn_seeds(pool: Sequence[_Placed], config: TaskConfig, task: Task, place: str) -> list[Example]:
    examples = [item.example for item in pool]
    if config.seed_rows:
        if len(examples) < config.seed_rows:
            raise UserError(
                f"task.seed_rows: {config.seed_rows} wanted, but {place} has {len(examples)} usable rows "
                "(without repeats and dev or test rows): lower it"
            )
        return examples[: config.seed_rows]
    wanted = config.seeds_per_class or 0
    groups = _grouped(examples, task)
    labels = task.labels if isinstance(task, Classification) else tuple(groups)
    short = [f"{label} {len(groups.get(label, []))}" for label in labels if len(groups.get(label, [])) < wanted]
    if short:
        raise UserError(
            f"task.seeds_per_class: {wanted} wanted, but {place} has fewer usable rows of: {', '.join(short)} "
            "(without repeats and dev or test rows): lower it or add rows"
        )
    chosen = {item.id for group in groups.values() for item in group[:wanted]}
    return [item for item in examples if item.id in chosen]


def _grouped(examples: Iterable[Example], task: Task) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[task.group(example)].append(example)
    return dict(groups)


def _capped(items: Sequence[_Placed], cap: int | None, task: Task, sample_seed: int) -> list[Example]:
    """At most `cap` rows in the groups' own proportions (largest remainders), so that accuracy stays comparable."""
    if cap is None or len(items) <= cap:
        return [item.example for item in items]
    examples = [item.example for item in _shuffled(items, sample_seed)]
    groups = _grouped(examples, task)
    shares = {name: divmod(cap * len(group), len(examples)) for name, group in groups.items()}
    left = cap - sum(whole for whole, _ in shares.values())
    by_remainder = sorted(shares, key=lambda name: (-shares[name][1], name))
    sizes = {name: shares[name][0] + (name in by_remainder[:left]) for name in shares}
    chosen = {item.id for name, group in groups.items() for item in group[: sizes[name]]}
    return [item for item in examples if item.id in chosen]
