"""One driver per run: a kernel lock on <run>/lease, gone with its process however that ends.

The text inside only says who holds it; the lock decides. On a shared file system it holds across machines where that
supports flock (NFSv4 does); one without locks is refused, for nothing else would keep two drivers from writing the same
versions. A run folder given as a URI has no such lock: there only the driver actor's name, unique in
its Ray cluster, keeps a second driver away, and who drives a run cannot be looked up. A child made by fork without exec
shares the lock and would keep it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from llm2llm_ray.errors import UserError
from llm2llm_ray.storage.disk import NO_LOCKS, refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who drives a run. Example: Holder(pid=4711, began=181203, host="laptop", started="2026-11-22T10:09:00+00:00", …)"""

    pid: int
    began: int
    """When the process began, in the kernel's clock ticks since boot: another process with the same id began at another."""
    host: str
    started: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} on host {self.host} since {self.started} ({self.command})"

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()


@contextmanager
def run_lease(run_folder: str) -> Iterator[None]:
    """Hold the run, or raise UserError saying who does. Never waits."""
    if not keeps_lease(run_folder):
        yield
        return
    folder = Path(run_folder.removeprefix("file://"))
    with _opened(folder) as stream:
        _lock(stream, folder)
        with refusals(*_told(folder)):
            stream.truncate(0)
            stream.write(_self().encode())
            stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def _opened(folder: Path) -> BinaryIO:
    with refusals(*_told(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        # "a+": opening must not clear the holder's text. The file stays when it is released: removing it would let two
        # processes lock two files of the same name.
        return open(folder / "lease", "a+b")


def _lock(stream: BinaryIO, folder: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"run {folder} is being driven by {_holder(stream)}; stop it or wait") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"run.folder {folder}: its file system has no locks ({error.strerror}), so a second driver of the same run could not "
            "be kept away; set run.folder to a local disk, or have it mounted with locks (NFS: version 4, or local_lock=flock "
            "where one machine drives; Lustre: -o flock)"
        ) from None


def _told(folder: Path) -> tuple[str, str]:
    return f"run.folder {folder}", "set run.folder to a folder that you may write to, on a disk with space"


def _self() -> str:
    return json.dumps(
        {
            "pid": os.getpid(),
            "began": _began(os.getpid()),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv),
        }
    )


def holder(run_folder: str) -> Holder | None:
    """Who drives the run now; None when nobody does. Looks only: a lock tried here could turn a starting driver away.

    A holder on another host is believed, one on this host must be alive. For folders without a lease the answer None means
    nothing.
    """
    if not keeps_lease(run_folder):
        return None
    try:
        found = _read((Path(run_folder.removeprefix("file://")) / "lease").read_bytes())
    except FileNotFoundError:
        return None
    return found if found is not None and (not found.here or is_driver(found)) else None


def keeps_lease(run_folder: str) -> bool:
    """Whether the folder is one where locks work: a path, not an object store."""
    return "://" not in run_folder or run_folder.startswith("file://")


def is_driver(holder: Holder) -> bool:
    """Whether the process of that id on this host is the one that took the run: not one that was given its id later, and not
    one of another container that shares the host's name."""
    return holder.began == _began(holder.pid)


def _began(pid: int) -> int | None:
    """Field 22 of proc_pid_stat(5); None when there is no such process, or only its exit code waits to be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # from the third; the program's name, in brackets, may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _read(text: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):  # half written, or by another version
        return None


def _holder(stream: BinaryIO) -> str:
    stream.seek(0)
    return str(_read(stream.read()) or "another process (it is just starting)")
