"""CPU seconds and peak memory of this process and all below it, by what each process is in a run."""

from __future__ import annotations

import threading
from collections import defaultdict

import psutil

_ACTORS = {"Asker": "asker", "ServeReplica": "replicas", "ServeController": "serve", "Driver": "driver"}


class Processes:
    """Sampled while the `with` block runs: this process (role "main") and all its descendants, Ray's own included."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._over = threading.Event()
        self._seen: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.cpu_s: dict[str, float] = defaultdict(float)
        self.peak_mib: dict[str, float] = defaultdict(float)
        """By role, of its largest process: resident, with what it maps of the object store."""

    def __enter__(self) -> Processes:
        self._sample(counted=False)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._sample()

    def _sample(self, *, counted: bool = True) -> None:
        mine = psutil.Process()
        for process in [mine, *mine.children(recursive=True)]:
            try:
                role = "main" if process == mine else role_of(" ".join(process.cmdline()[:2]))
                times, memory = process.cpu_times(), process.memory_info().rss / 2**20
            except psutil.Error:  # ended meanwhile
                continue
            used = times.user + times.system
            if counted:  # by what the process is now: an idle worker takes on tasks and actors under other names
                self.cpu_s[role] += used - self._seen.get(process.pid, 0.0)
            self._seen[process.pid] = used
            self.peak_mib[role] = max(self.peak_mib[role], memory)


def role_of(command: str) -> str:
    """Example: "ray::ServeReplica:app:student" -> "replicas"; "ray::Write" -> "data", as every task and map worker."""
    if not command.startswith("ray::"):
        return next((name for name in ("raylet", "gcs_server") if f"/{name} " in f"{command} "), "other")
    return next((role for name, role in _ACTORS.items() if name in command), "data")
