"""Processor seconds of this process and all below it, by what they are for, over any stretch of time while it watches."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

import psutil

_EVERY_S = 1.0  # one look takes some 10 ms


class CpuSeconds:
    """A context: `between` may be asked once it is left, or `_EVERY_S` after the stretch's end.

    `group(title, ancestors)` names a process by its command line and its ancestors' pids. What a process uses after the last
    look at it, before it ends, is not seen.
    """

    def __init__(self, group: Callable[[str, frozenset[int]], str]) -> None:
        self._group = group
        self._spans: list[tuple[float, float, dict[str, float]]] = []
        self._seen: dict[tuple[int, float], float] = {}
        self._at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuSeconds:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def between(self, start: float, end: float) -> dict[str, float]:
        """Unix seconds; within one look's span the use is taken as even."""
        found: Counter[str] = Counter()
        for since, until, used in self._spans:
            share = (min(end, until) - max(start, since)) / (until - since)
            if share > 0:
                for name, seconds in used.items():
                    found[name] += share * seconds
        return {name: round(seconds, 2) for name, seconds in sorted(found.items(), key=lambda item: -item[1]) if seconds >= 0.01}

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        root = psutil.Process()
        now, used, seen = time.time(), Counter[str](), {}
        above = {root.pid: frozenset[int]()}
        for process in (root, *root.children(recursive=True)):  # parents come before their children
            try:
                with process.oneshot():
                    times, key = process.cpu_times(), (process.pid, process.create_time())
                    title, parent = " ".join(process.cmdline()), process.ppid()
            except psutil.Error:  # it has ended
                continue
            above.setdefault(process.pid, above.get(parent, frozenset()) | {parent})
            seen[key] = times.user + times.system
            if self._at:
                used[self._group(title, above[process.pid] | {process.pid})] += seen[key] - self._seen.get(key, 0.0)
        if self._at:
            self._spans.append((self._at, now, dict(used)))
        self._at, self._seen = now, seen
