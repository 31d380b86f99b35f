"""Which rows are seeds, dev and test: found, read, cleaned of leaks (seed_rows.py) and capped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.classification import Classification, label_of
from llm2llm_ray.tasks.rows import Row, read_rows
from llm2llm_ray.tasks.seed_rows import HeldOutRows, NearCopies, Placed, drawn, grouped, one_answer, shuffled, whole
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
    test row), `conflicting_removed` (one text, two answers), `duplicates_removed` from the seed pool when seeds are drawn,
    and `near_removed` (near to a dev or test row) while drawing; `dev_leaked_removed` (equal a test row). Of a seed file
    taken whole: `near_held_out`, `repeats`. And what the task counts of the used rows (casehold: `seed_cut`, `dev_cut`,
    `test_cut`).
    """
    sources: Mapping[str, str] = field(default_factory=dict)
    """Split -> the file or hub split it was read from."""

    def error_source(self, name: str) -> list[Example]:
        """The rows in which errors are looked for, by `evaluation.error_source`."""
        return self.dev if name == "dev" else self.seed

    notices: Sequence[str] = ()
    """Rows that a person should look at, one a line: near copies of dev and test rows, with both places."""


def load_splits(
    task_config: TaskConfig, task: Task, *, base_dir: str | Path, near: NearCopies | None = None
) -> tuple[Task, Splits]:
    """The task (its label set fixed) and its rows; raises UserError.

    A relative path is looked up in the current directory, then in `base_dir` (the config file's folder). Without `near`,
    seeds are compared with dev and test rows for equal texts only.
    """
    sources = find_sources(task_config, base_dir)
    rows = {name: _read(source, task_config, task) for name, source in sources.items()}
    if isinstance(task, Classification) and not task.labels:
        task = _with_labels_of(task, rows["seed"])
    placed: dict[str, list[Placed]] = {}
    for name, found in rows.items():
        taken = {item.example.id for items in placed.values() for item in items}
        placed[name] = _examples(task, found, role=name, taken=taken)
    seed, dev, test = (placed.get(name, []) for name in ("seed", "dev", "test"))
    test_keys = {item.key for item in test}
    clean_dev = [item for item in dev if item.key not in test_keys]
    counts = {f"{name}_read": len(items) for name, items in placed.items()}
    counts["dev_leaked_removed"] = len(dev) - len(clean_dev)
    held_out, place = HeldOutRows(dev, test, near), sources["seed"].place
    if task_config.seeds_per_class or task_config.seed_rows:
        seeds = drawn(seed, held_out, task_config, task, place)
    else:
        seeds = whole(seed, held_out, task)
    counts.update(seeds.counts)
    splits = Splits(
        seed=seeds.rows,
        dev=_capped(clean_dev, task_config.dev_rows, task, task_config.sample_seed),
        test=_capped(test, task_config.test_rows, task, task_config.sample_seed),
        counts=counts,
        sources={name: source.place for name, source in sources.items()},
        notices=seeds.notices,
    )
    for name, used in (("seed", splits.seed), ("dev", splits.dev), ("test", splits.test)):
        counts[name] = len(used)
        counts.update({f"{name}_{what}": number for what, number in task.counts(used).items()})
    return task, splits


def unused_rows(task_config: TaskConfig, task: Task, splits: Splits, *, base_dir: str | Path) -> list[Example]:
    """Rows of the seed file that stand in none of the splits, in the order of the draw; without repeats, without texts that have
    two answers, and without copies of used rows (near copies of dev and test rows are a gate's to find)."""
    source = find_sources(task_config, base_dir)["seed"]
    placed = _examples(task, _read(source, task_config, task), role="seed", taken=set())
    used = {Placed(row, "").key for row in (*splits.seed, *splits.dev, *splits.test)}
    free = {item.key: item.example for item in one_answer(placed, task, task_config.sample_seed) if item.key not in used}
    return list(free.values())


def _read(source: Source, config: TaskConfig, task: Task) -> list[tuple[str, Row]]:
    rows = read_rows(source.path, split=source.split, columns=config.columns, needed=task.columns)
    return [(f"{source.place}, line {line}", row) for line, row in rows]


def _with_labels_of(task: Classification, rows: Sequence[tuple[str, Row]]) -> Classification:
    labels = {label_of(str(row["label"])) for _, row in rows if isinstance(row["label"], str | int)}
    try:
        return task.with_labels(sorted(labels))
    except ValueError as error:
        place = rows[0][0].rpartition(",")[0]
        raise UserError(f"{place}: {error}, or list the labels in task.options.labels") from None


def _examples(task: Task, rows: Sequence[tuple[str, Row]], *, role: str, taken: set[str]) -> list[Placed]:
    """Files whose ids all begin at 0 are common: an id that an earlier split has gets the role in front."""
    placed = []
    for where, row in rows:
        row_id = str(row["id"])
        try:
            example = task.example(row, f"{role}-{row_id}" if row_id in taken else row_id)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        placed.append(Placed(replace(example, origin="seed" if role == "seed" else "dev"), where))
    return placed


def _capped(items: Sequence[Placed], cap: int | None, task: Task, sample_seed: int) -> list[Example]:
    """At most `cap` rows in the groups' own proportions (largest remainders), so that accuracy stays comparable."""
    if cap is None or len(items) <= cap:
        return [item.example for item in items]
    groups = grouped(shuffled(items, sample_seed), task)
    shares = {name: divmod(cap * len(group), len(items)) for name, group in groups.items()}
    left = cap - sum(count for count, _ in shares.values())
    by_remainder = sorted(shares, key=lambda name: (-shares[name][1], name))
    sizes = {name: shares[name][0] + (name in by_remainder[:left]) for name in shares}
    chosen = {item.example.id for name, group in groups.items() for item in group[: sizes[name]]}
    return [item.example for item in shuffled(items, sample_seed) if item.example.id in chosen]
