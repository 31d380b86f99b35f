"""Which programs of this machine hold its memory, read from /proc. Of anybody's program only its name is told."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COUNTED = ("RssAnon", "RssShmem")
"""Not files that are mapped: the kernel takes those pages back when it needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Processes of one name. Example: str(Program(name="python train.py", pid=4121, processes=1, gib=14.0))"""

    name: str
    pid: int
    """Of the largest process."""
    processes: int
    gib: float

    def __str__(self) -> str:
        more = f" and {self.processes - 1} more" if self.processes > 1 else ""
        return f"{self.name} {self.gib:.1f} GiB (pid {self.pid}{more})"


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    name: str
    gib: float


def largest_programs(count: int = 3, *, least_gib: float = 0.1) -> tuple[list[Program], list[Program]]:
    """(ours, others), largest first: ours are those of this process and of all below it."""
    found = list(_processes())
    ours = _below(os.getpid(), found)
    return (
        _programs((process for process in found if process.pid in ours), count, least_gib),
        _programs((process for process in found if process.pid not in ours), count, least_gib),
    )


def _programs(processes: Iterable[_Process], count: int, least_gib: float) -> list[Program]:
    groups: dict[str, list[_Process]] = defaultdict(list)
    for process in processes:
        groups[process.name].append(process)
    found = [
        Program(
            name=name,
            pid=max(group, key=lambda process: process.gib).pid,
            processes=len(group),
            gib=sum(process.gib for process in group),
        )
        for name, group in groups.items()
    ]
    return sorted((p for p in found if p.gib >= least_gib), key=lambda program: -program.gib)[:count]


def _below(pid: int, processes: Iterable[_Process]) -> set[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for process in processes:
        children[process.parent].append(process.pid)
    found, waiting = set[int](), [pid]
    while waiting:
        now = waiting.pop()
        found.add(now)
        waiting += children[now]
    return found


def _processes() -> Iterator[_Process]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        kib = sum(int(status.get(name, "0").split()[0]) for name in _COUNTED)
        yield _Process(int(entry.name), int(status["PPid"]), _name(command, status["Name"].strip()), kib / 2**20)


def _name(command: str, name: str) -> str:
    """An interpreter goes by what it runs; arguments are told of nobody. Example: "python3 train.py"."""
    words = [word for word in command.split("\0") if word]
    program = os.path.basename(words[0].split()[0]) if words and words[0].strip() else name
    if not program.startswith(("python", "node", "java", "ruby", "perl", "Rscript")):
        return program
    if "-m" in words[1:3]:
        return " ".join([program, *words[words.index("-m") : words.index("-m") + 2]])
    script = next((word for word in words[1:] if not word.startswith("-")), "")
    return f"{program} {os.path.basename(script)}" if script and "-c" not in words[1:3] else program
