"""The ports of the loop: a verb or a few each. `algorithm.py` knows these and nothing below them.

`graded` and `augmented` are single-pass streams: building them starts nothing; the work runs when `Versions` drains
them. So a teacher that reads `graded.wrong()` works while the student is still being evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llm2llm_ray.types import DatasetVersion, Round, Student


class Stream(Protocol):
    """Rows in the making, of one iteration. Nothing runs until it is drained."""

    @property
    def iteration(self) -> int: ...

    @property
    def inputs(self) -> Mapping[str, Any]:
        """All that the rows depend on, as plain values: the stage's key is made of it, so equal inputs are drained once."""
        ...

    def drain(self, folder: str) -> None:
        """Run to the end and write every row, as Parquet, below `folder` of the run. A second time raises `StreamConsumed`.

        Rows have the columns of the error source and `rounds.solving.SOLVED`.
        """
        ...


class GradedStream(Stream, Protocol):
    """E^i: every row of the error source with the student's answer, right or wrong."""

    def wrong(self) -> WrongStream: ...


class WrongStream(Protocol):
    """W^i: a graded stream seen as its wrong rows. An `Augmenter` of the same runtime makes it an `AugmentedStream`."""

    @property
    def graded(self) -> GradedStream:
        """The whole stream: its right rows flow past the teacher untouched, to be recorded with the others."""
        ...


class AugmentedStream(Stream, Protocol):
    """A^i: the graded stream with what the teacher wrote for the wrong rows, asked as soon as each is known; or for
    other targets, asked once all rows are graded (`augmentation.targets`).

    Draining it drains the graded stream under it. Rows have the columns of `rounds.augmenting.ASKED` too.
    """


class Trainer(Protocol):
    def train(self, dataset: DatasetVersion, start: Student | None) -> Student:
        """Train on all of `dataset`, from the base model, or from `start` if it is given."""
        ...


class ErrorSource(Protocol):
    """Where errors come from: the seeds (the paper) or a dev split."""

    def stream(self, student: Student, dataset: DatasetVersion) -> GradedStream:
        """May first train who is to answer, as recorded stages: the stream's inputs say who that is."""
        ...


class Augmenter(Protocol):
    def augment(self, wrong: WrongStream) -> AugmentedStream: ...


class WorthAsking(Protocol):
    """Whether the teacher should be asked for rows at this student's mistakes; otherwise its iteration is the last."""

    def __call__(self, student: Student, /) -> bool: ...


def always(student: Student, /) -> bool:
    return True


class Versions(Protocol):
    def seed(self) -> DatasetVersion:
        """D^0."""
        ...

    def extend(self, dataset: DatasetVersion, augmented: AugmentedStream) -> tuple[DatasetVersion, Round]:
        """Drain the stream, run the commit gates, and write D^{i+1} = D^i + A^i."""
        ...

    def close(self, dataset: DatasetVersion, graded: GradedStream) -> Round:
        """Drain a graded stream that nobody augments (the last iteration) and say what it came to."""
        ...
