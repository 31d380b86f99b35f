"""The ports of the loop: one or two verbs each. `algorithm.py` knows these and nothing below them.

`graded` and `augmented` are single-pass streams: building them starts nothing; the work runs when `Versions` drains
them. So a teacher that reads `graded.wrong()` works while the student is still being evaluated.
"""

from __future__ import annotations

from typing import Protocol

from llm2llm_ray.types import DatasetVersion, Round, Student


class AugmentedStream(Protocol):
    """A^i in the making: the graded rows, the wrong ones with what the teacher wrote for them."""


class WrongStream(Protocol):
    """W^i: the graded stream seen as its wrong rows (the right ones flow past untouched, to be recorded)."""


class GradedStream(Protocol):
    """E^i: every row of the error source with the student's answer. Iterating it twice raises `StreamConsumed`."""

    def wrong(self) -> WrongStream: ...


class Trainer(Protocol):
    def finetune(self, dataset: DatasetVersion, start: Student | None) -> Student:
        """Train on all of `dataset`, from the base model, or from `start` if it is given."""
        ...


class ErrorSource(Protocol):
    """Where errors come from: the seeds (the paper), a dev split, or cross-fitting."""

    def stream(self, student: Student, dataset: DatasetVersion) -> GradedStream: ...


class Augmenter(Protocol):
    def augment(self, wrong: WrongStream) -> AugmentedStream: ...


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
