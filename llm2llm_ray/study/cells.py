"""The cells of a study in the order in which they run, and each one's config.

Invariant: a cell's config follows from spec, base config and (where its rows are to equal another's) that cell's finished run, so
the same command makes the same runs again, whose finished stages are recorded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import put, validated
from llm2llm_ray.study.spec import StudySpec

AT_MOST_EACH = 1000
"""Rows that a file may bring for a seed: it is the number of all rows that is held to the reference's."""
CELLS = "cells"
"""Folder of the cells below the study's: each is a run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Example: Cell(label="loop_early", draw=1, run_seed=0, size=4).name == "loop-early-d1-s0-n4" """

    label: str
    draw: int
    run_seed: int
    size: int | None
    """Seed rows, of each class or in all; None: as many as the base config takes."""

    @property
    def name(self) -> str:
        """Of its run."""
        size = "" if self.size is None else f"-n{self.size}"
        return f"{self.label.replace('_', '-')}-d{self.draw}-s{self.run_seed}{size}"


def cells(spec: StudySpec) -> list[Cell]:
    """All cells. A cell stands behind the one whose rows it equals; the methods of one draw stand together, so that a study that
    is broken off has compared something."""
    sizes: Sequence[int | None] = spec.seed_sizes.values if spec.seed_sizes else (None,)
    labels = _behind_their_reference(spec)
    return [
        Cell(label=label, draw=draw, run_seed=run_seed, size=size)
        for draw in spec.draws
        for run_seed in spec.run_seeds
        for size in sizes
        for label in labels
    ]


def _behind_their_reference(spec: StudySpec) -> list[str]:
    first = [label for label in spec.methods if not spec.method(label).equal_rows]
    return first + [label for label in spec.methods if spec.method(label).equal_rows]


def reference_of(spec: StudySpec, cell: Cell) -> Cell | None:
    """The cell whose number of new rows this one is held to; None where it is held to none."""
    if not spec.method(cell.label).equal_rows or "augmentation.rows_at_most" in _set(spec, cell.label):
        return None
    label = spec.reference(cell.label)
    assert label is not None, "the spec was checked"
    return Cell(label=label, draw=cell.draw, run_seed=cell.run_seed, size=cell.size)


def cell_config(
    spec: StudySpec, base: Mapping[str, Any], cell: Cell, *, rows: Sequence[int] | None = None, given: str | None = None
) -> Config:
    """The run of one cell. `rows`: new rows of each of its reference's rounds; `given`: the file of its rows, where no model is
    asked for them. Without these the config is good for being checked only. Raises UserError naming cell, field and value."""
    told = f"study {spec.name}, cell {cell.name}"
    raw = copy.deepcopy(dict(base))
    for key, value in _changes(spec, cell, rows, given):
        put(raw, key, value, f"{told}: {key}")
    return validated(Config, raw, told)


def _changes(spec: StudySpec, cell: Cell, rows: Sequence[int] | None, given: str | None) -> Iterator[tuple[str, Any]]:
    """In order: what all have, the reference's, the method's own, the user's last; then where and which cell it is."""
    method, reference = spec.method(cell.label), spec.reference(cell.label)
    yield from spec.set.items()
    if reference is not None and method.source is None and reference != cell.label:
        yield from spec.method(reference).changes.items()
        yield from spec.methods[reference].set.items()
        if method.blind and spec.method(reference).source != "early":
            # Errors decide nothing here, and other sources may train students of their own for them. A snapshot costs nothing,
            # and with it the first student is the reference's: it is trained once for both.
            yield "evaluation.error_source", "seed"
    yield from method.changes.items()
    if rows is not None:
        yield "augmentation.rows_at_most", sum(rows) if method.changes.get("augmentation.one_shot") else list(rows)
    if method.given is not None:
        yield "teacher.model", given or f"{method.given}.jsonl"
        if method.equal_rows:
            yield "augmentation.per_wrong", AT_MOST_EACH
    yield from spec.methods[cell.label].set.items()
    if spec.seed_sizes is not None:
        other = {"task.seeds_per_class": "task.seed_rows", "task.seed_rows": "task.seeds_per_class"}[spec.seed_sizes.field]
        yield from ((spec.seed_sizes.field, cell.size), (other, None))
    yield from (("task.sample_seed", cell.draw), ("run.seed", cell.run_seed), ("student.seed", cell.run_seed))
    yield from (("run.name", cell.name), ("run.folder", f"{spec.path}/{CELLS}"))


def _set(spec: StudySpec, label: str) -> dict[str, Any]:
    return {**spec.set, **spec.methods[label].set}
