"""What a role tells of itself while it works: to Ray's metrics, and to the driver, from whom it hears whether to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llm2llm_ray.runtime.series import RoleMetrics

_REPORT_EVERY_S = 0.5


class Telling:
    """Of one role in one stream, however many students answer in it. `progress`: handle of the driver; None: nobody is told."""

    def __init__(self, run_root: str, stream: str, role: str, progress: Any) -> None:
        self.metrics = RoleMetrics(run_root, role)
        self._stream, self._role, self._progress = stream, role, progress
        self._done = self.open = 0
        self.on_stop: list[Callable[[], None]] = []
        """Called, as often as the driver says so, when the run is being stopped."""
        self._listener: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """The first block has come."""
        if self._listener is None and self._progress is not None:
            self._listener = asyncio.create_task(self._listen())

    def passed(self, rows: int) -> None:
        self.metrics.tell(rows=rows, in_flight=self.open)
        self._done += rows

    def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            self.metrics.tell(rows=0, in_flight=self.open)
            if await self._progress.advance.remote(self._stream, self._role, self._done):
                for stop in self.on_stop:
                    stop()
