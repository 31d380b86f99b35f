"""Where training jobs are handed to the resident workers, one after the other, and their metrics handed back.

Invariants: every rank gets the same jobs in the same order; a job is over only when rank 0 says so, and until then a group that
was started anew gets it again. Knows nothing of what a job is.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray


class TrainingDesk:
    """Made an actor by `open_desk`; workers come to it themselves, so it needs no handles on them."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._number = 0
        self._job: Any = None
        self._metrics: dict[str, Any] | None = None
        self._closed = False

    async def train(self, job: Any) -> dict[str, Any]:
        """Hand out `job`; returns its metrics once it is over. One at a time."""
        async with self._changed:
            assert self._job is None, "a training is on the desk already"
            self._number, self._job, self._metrics = self._number + 1, job, None
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._metrics is not None)
            assert self._metrics is not None
            return self._metrics

    async def next_job(self, after: int) -> tuple[int, Any] | None:
        """The job that is to be done, once its number is above `after` (the last one the caller has done); None: go home."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or (self._job is not None and self._number > after))
            return None if self._job is None or self._number <= after else (self._number, self._job)

    async def finish(self, number: int, metrics: dict[str, Any]) -> None:
        async with self._changed:
            if number == self._number and self._job is not None:  # told twice by a group that died in between
                self._job, self._metrics = None, metrics
                self._changed.notify_all()

    async def close(self) -> None:
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


def open_desk() -> Any:
    """A handle on a new desk, which ends with its owner."""
    return ray.remote(TrainingDesk).options(num_cpus=0, max_concurrency=1000).remote()
