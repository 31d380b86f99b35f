"""Processor seconds and peak memory of this process and all below it, by what they are for, sampled while it watches."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType

import psutil

_EVERY_S = 1.0  # one look takes some 10 ms
_ACTORS = {"Asker": "asker", "ServeReplica": "replicas", "ServeController": "serve", "Driver": "driver"}


def role_of(command: Sequence[str], line: frozenset[int]) -> str:
    """Example: "ray::ServeReplica:app:student" -> "replicas"; "ray::Write" -> "data", as every task and map worker."""
    if line == {os.getpid()}:
        return "main"
    title = " ".join(command[:2])
    if not title.startswith("ray::"):
        return next((name for name in ("raylet", "gcs_server") if f"/{name} " in f"{title} "), "other")
    return next((role for name, role in _ACTORS.items() if name in title), "data")


class ProcessUse:
    """A context, for one block; Ray's own processes are watched too.

    `group(command, line)` names a process by its command line and its line: the pids from this process down to it. It is asked
    at every look, for an idle worker takes on tasks and actors under other names. What a process uses after the last look at it,
    before it ends, is not seen.
    """

    def __init__(self, group: Callable[[Sequence[str], frozenset[int]], str] = role_of) -> None:
        self._group = group
        self._spans: list[tuple[float, float, dict[str, float]]] = []
        self._seen: dict[psutil.Process, float] = {}  # by pid and start, so a pid used anew is another process
        self._at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.cpu_s: dict[str, float] = defaultdict(float)
        """By group, over the whole block."""
        self.peak_mib: dict[str, float] = defaultdict(float)
        """By group, of its largest process: resident, with what it maps of the object store."""

    def __enter__(self) -> ProcessUse:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def cpu_s_between(self, start: float, end: float) -> dict[str, float]:
        """Unix seconds; may be asked `_EVERY_S` after `end`, or once the block is left. Within one look's span use is even."""
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
        now, used = time.time(), Counter[str]()
        lines = {root.pid: frozenset({root.pid})}
        for process in (root, *root.children(recursive=True)):  # parents come before their children
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info().rss / 2**20
                    command, parent = process.cmdline(), process.ppid()
            except psutil.Error:  # it has ended
                continue
            line = lines.setdefault(process.pid, lines.get(parent, frozenset({parent})) | {process.pid})
            name, total = self._group(command, line), times.user + times.system
            if self._at:  # what was used before the first look is not ours
                new = total - self._seen.get(process, 0.0)
                used[name] += new
                self.cpu_s[name] += new
            self._seen[process] = total
            self.peak_mib[name] = max(self.peak_mib[name], memory)
        if self._at:
            self._spans.append((self._at, now, dict(used)))
        self._at = now
