"""Whether memory ended a run, and who held it: told as one message instead of as what Ray says of a process that died.

A process that the kernel killed leaves no reason. Its killings are counted, and who held what is noted while memory is tight: at
the end of the run, what it held is free again. Sees this node; of others only what Ray's own monitor says.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.exceptions import RayError
from ray.train import TrainingFailedError

from llm2llm_ray.errors import TemporaryFailure
from llm2llm_ray.machine import memory
from llm2llm_ray.programs import Program, largest_programs
from llm2llm_ray.storage.files import Files

TOLD_IN = "evidence/failure.txt"
_TIGHT = 0.15
"""Share of the memory below which it is noted who holds it."""
_STEP_GIB = 0.1
_RAYS_MONITOR = re.compile(r"running low on memory|\bOutOfMemoryError: Task was killed")
_REFUSED = re.compile(r"can't allocate memory|Cannot allocate memory|\bMemoryError\b|\bstd::bad_alloc\b")
_DIED = re.compile(r"died unexpectedly|unexpectedly exit|WorkerCrashedError|ActorDiedError|EngineDeadError|SIGKILL")


class MemoryWatch:
    """`look` whenever there is a moment; `explained` around what waits for the run."""

    def __init__(self, files: Files) -> None:
        self._files, self._killed = files, killed_by_kernel()
        self._tightest: tuple[float, float, list[Program], list[Program]] | None = None

    def look(self) -> None:
        total, available = memory()
        least = self._tightest[1] if self._tightest else _TIGHT * total
        if available < least - _STEP_GIB:
            self._tightest = (total, available, *largest_programs(5))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What memory ended leaves as a TemporaryFailure; everything else as it came."""
        try:
            yield
        except (RayError, TrainingFailedError) as error:
            text = "".join(traceback.format_exception(error))
            why = ended_by_memory(text, killed_by_kernel() - self._killed)
            if why is None:
                raise
            self._files.replace(TOLD_IN, text.encode())
            raise TemporaryFailure(self._message(why)) from None

    def _message(self, why: str) -> str:
        total, available, ours, others = self._tightest or (*memory(), *largest_programs(5))
        return (
            f"memory ran out: {why}. When least was free ({available:.1f} of {total:.1f} GiB), this run held "
            f"{_listed(ours)}; others: {_listed(others)}. End what else holds memory, or take smaller models "
            f"(student.model, teacher.model, engine.kv_cache_gib); what was done is stored, and the same command goes on. "
            f"Ray's own words: {self._files.absolute(TOLD_IN)}"
        )


def _listed(programs: list[Program]) -> str:
    return ", ".join(map(str, programs)) or "nothing large"


def ended_by_memory(text: str, killed: int) -> str | None:
    """Why an error with this text is memory's doing, or None. `killed`: processes that the kernel ended for it meanwhile."""
    if _RAYS_MONITOR.search(text):
        return "Ray's memory monitor ended a worker"
    if _REFUSED.search(text):
        return "a process was refused more of it"
    if killed > 0 and _DIED.search(text):
        return f"the kernel ended {killed} process{'es' if killed > 1 else ''}"
    return None


def killed_by_kernel() -> int:
    """Processes that the kernel has ended for memory: of this control group, where there is one, else of the machine."""
    path = next(filter(os.path.exists, ("/sys/fs/cgroup/memory.events", "/proc/vmstat")), os.devnull)
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return sum(int(fields[1]) for fields in lines if fields[0] == "oom_kill")
