"""How much a run does: students, requests per wrong row, optimizer updates. Arithmetic that the run and its plan share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from llm2llm_ray.config import AugmentationConfig, ClusterConfig, Config

LOGICAL_CPUS = 4
"""At least, of a Ray that we start on a laptop: engines, data actors and training workers ask for tenths."""
MIN_UPDATES, SEED_EPOCHS, MIN_EPOCHS = 60, 15, 2
"""Of `student.updates: auto`. Provisional: guessed from one task, to be set by a measurement over tasks, draws and rates."""
_TENTH = 0.1
"""Logical CPUs of what computes on CPU: whoever has work uses all cores, so nobody reserves them; two runs fit on a laptop."""


def num_iterations(config: Config) -> int:
    """Students trained; the ablation `one_shot` trains two."""
    return min(2, config.run.iterations) if config.augmentation.one_shot else config.run.iterations


def num_folds(config: Config) -> int:
    """Further students trained in each iteration, each without a part of the seeds."""
    return config.evaluation.folds if config.evaluation.error_source == "cross_fit" else 0


def asking(config: Config) -> AugmentationConfig:
    """`augmentation` as a round asks by it: one-shot asks for the new examples of all rounds in its one, and a call for no more
    than are wanted."""
    settings = config.augmentation
    wanted = settings.per_wrong * (max(1, config.run.iterations - 1) if settings.one_shot else 1)
    return settings.model_copy(update={"per_wrong": wanted, "per_call": min(settings.per_call, wanted)})


def rows_per_call(per_wrong: int, per_call: int) -> list[int]:
    """New examples asked for in each call about one wrong row of a round; the last asks for what is left: [4, 4, 2] for 10."""
    full, left = divmod(per_wrong, per_call)
    return [per_call] * full + [left] * (left > 0)


def votes_each(config: Config, contested: float) -> float:
    """Votes on one new row, where this share is asked for of what it could have beyond those that confirm it."""
    relabel = config.gates.relabel
    return relabel.least + contested * (relabel.votes - relabel.least) if relabel.votes else 0.0


def updates_per_epoch(num_rows: int, global_batch_size: int) -> int:
    """An epoch's last batch may be smaller."""
    return math.ceil(num_rows / global_batch_size)


def auto_updates(seeds: int, rows: int, global_batch_size: int) -> int:
    """`student.updates: auto` for D of `rows` rows, grown from a D^0 of `seeds`: enough to know the seeds, and the same for every
    student of a run while D fits into it. D outgrows it where it would be seen fewer than MIN_EPOCHS times."""
    enough = max(MIN_UPDATES, math.ceil(SEED_EPOCHS * seeds / global_batch_size))
    return max(enough, math.ceil(MIN_EPOCHS * rows / global_batch_size))


def fixed_updates(updates: int | Literal["auto"] | None, *, seeds: int, rows: int, global_batch_size: int) -> int | None:
    """The number that `student.updates` means for D of `rows` rows; None where `student.epochs` decides."""
    return auto_updates(seeds, rows, global_batch_size) if updates == "auto" else updates


def total_updates(num_rows: int, global_batch_size: int, epochs: float, updates: int | None) -> int:
    """`updates`: as `fixed_updates` has it."""
    return updates or max(1, math.ceil(epochs * updates_per_epoch(num_rows, global_batch_size)))


def early_update(total: int, early_at: float) -> int:
    """The update, from 1, after which a student of `total` updates is kept as it then is (`evaluation.error_source: early`)."""
    return math.ceil(early_at * total)


def updates_in_all(trainings: Sequence[int], start_from: str) -> int:
    """Updates behind the last student's weights. `trainings`: each student's own, in order. One that goes on from the student
    before (`student.start_from: previous`) has taken that one's, too."""
    return sum(trainings) if start_from == "previous" else trainings[-1]


def worker_cpus(cluster: ClusterConfig, *, on_gpu: bool) -> float:
    """Logical CPUs that a training worker reserves."""
    return cluster.cpus_per_worker or (1 if on_gpu else _TENTH)
