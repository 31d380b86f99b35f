"""A run's curves for TensorBoard (`run.tensorboard`), in <run>/tensorboard: loss by update, accuracy and growth by iteration.

Written as the run goes, for watching; what a run reports is read from its records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm2llm_ray.accuracy import unanswered
from llm2llm_ray.types import Iteration


class Board:
    """Does nothing when `folder` is None. Steps are updates within one training, and iterations otherwise."""

    def __init__(self, folder: str | None) -> None:
        self._writer: Any = None
        if folder is not None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(folder)

    def update(self, training: str, line: Mapping[str, Any]) -> None:
        """One line of a training's log: {"update", "loss", "lr", "seconds", ...}; `training` for instance "train-0"."""
        if self._writer is not None:
            for name in ("loss", "token_accuracy", "lr", "seconds"):
                if name in line:
                    self._writer.add_scalar(f"{training}/{name}", line[name], line["update"])

    def iteration(self, found: Iteration) -> None:
        if self._writer is None:
            return
        round_ = found.round
        values = {
            "loop/rows": found.dataset.num_rows,
            "loop/wrong": round_.wrong,
            "loop/unanswered": round_.unanswered,
            "loop/accepted": round_.accepted,
            "loop/rejected": sum(round_.rejected.values()),
            "loop/updates": found.student.metrics.get("updates", 0),
        }
        if round_.evaluated:
            values["loop/error_source_accuracy"] = round_.accuracy.value
        for name, value in values.items():
            self._writer.add_scalar(name, value, found.index)
        self._writer.flush()

    def exams(self, accuracy: Mapping[str, Mapping[str, Any]], iteration: int) -> None:
        if self._writer is not None:
            for who, told in accuracy.items():
                self._writer.add_scalar(f"test/{who}", told["value"], iteration)
                self._writer.add_scalar(f"test_unanswered/{who}", unanswered(told), iteration)
            self._writer.flush()

    def close(self) -> None:
        """Everything is in the file on return; `flush` only hands it to a thread."""
        if self._writer is not None:
            self._writer.close()
