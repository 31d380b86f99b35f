"""Where errors come from (`evaluation.error_source`): which rows a round asks about, and which student answers them.

`seed`, `dev` and `early` differ in rows and in who answers; `cross_fit` trains a student for each fold first, each a recorded
stage of its own, and then lets all of them answer in one stream, fold after fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llm2llm_ray.config import Config
from llm2llm_ray.protocols import ErrorSource
from llm2llm_ray.rounds.folds import Fold, folds, rows_by_fold
from llm2llm_ray.rounds.round_inputs import cross_fitted
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.streaming.streams import RayGraded
from llm2llm_ray.types import DatasetVersion, Student

TrainWithout = Callable[[Fold, DatasetVersion, Student | None], Student]
"""(fold, D^i, the student to go on from; None: the base model) -> a student trained on D^i without the fold."""


def error_source(parts: Parts, seeds: DatasetVersion, train_without: TrainWithout) -> ErrorSource:
    """`train_without` is called with cross_fit only."""
    return CrossFitted(parts, seeds, train_without) if parts.inputs.folds else Answered(parts, seeds)


class Answered:
    """`seed`: the rows of D^0 (of D^i in the ablation); `dev`: the held-out split. Either way a list of Parquet parts.
    `early`: the seeds, answered by the snapshot that the training left."""

    def __init__(self, parts: Parts, seeds: DatasetVersion) -> None:
        self._parts, self._seeds = parts, seeds

    def stream(self, student: Student, dataset: DatasetVersion) -> RayGraded:
        config, rows = self._parts.config, _seed_rows(self._parts.config, self._seeds, dataset)
        if config.evaluation.error_split == "dev":
            assert self._parts.inputs.dev is not None
            rows = self._parts.inputs.dev
        if config.evaluation.error_source == "early":
            assert student.early is not None, "the trainer leaves a snapshot where the config asks it"
            student = replace(student, path=student.early.path, sha=student.early.sha, early=None)
        return self._parts.graded(student, rows, in_round=True)


class CrossFitted:
    """The seeds, each answered by its fold's student. What is asked of M^i itself is its exams only."""

    def __init__(self, parts: Parts, seeds: DatasetVersion, train_without: TrainWithout) -> None:
        self._parts, self._seeds, self._train_without = parts, seeds, train_without
        self._folds = folds(parts.inputs.folds)
        self._students: list[Student] = []
        """Of the iteration before, by fold."""

    def stream(self, student: Student, dataset: DatasetVersion) -> RayGraded:
        """Trains the folds' students first, or finds them recorded. With `student.start_from: previous` each goes on from its
        fold's last one: M^{i-1} has seen the fold."""
        config = self._parts.config
        goes_on = self._students and config.student.start_from == "previous"
        starts: list[Student | None] = [*self._students] if goes_on else [None] * len(self._folds)
        trained = [self._train_without(fold, dataset, start) for fold, start in zip(self._folds, starts, strict=True)]
        self._students = trained
        rows = _seed_rows(config, self._seeds, dataset)
        graded = self._parts.graded(trained[0], rows, in_round=True)
        return replace(
            graded,
            rows=rows_by_fold(self._parts.files, rows, self._parts.inputs.folds),
            solve=replace(graded.solve, by_fold=tuple(self._parts.voice(one) for one in trained)),
            inputs=cross_fitted(graded.inputs, student=student.sha, students=list(zip(self._folds, trained, strict=True))),
            weights=tuple(path for one in trained for path in self._parts.weights_of(one)),
        )


def _seed_rows(config: Config, seeds: DatasetVersion, dataset: DatasetVersion) -> DatasetVersion:
    return dataset if config.augmentation.augment_augmented else seeds
