"""One driver per run: a kernel lock on <run>/lease, gone with its process however that ends.

The text inside only says who holds it; the lock decides. On a shared file system it holds across machines where that
supports flock (NFSv4 does). A run folder given as a URI has no such lock: there only the driver actor's name, unique in
its Ray cluster, keeps a second driver away. A child made by fork without exec shares the lock and would keep it.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who drives a run. Example: Holder(pid=4711, host="laptop", started="2026-11-22T10:09:00+00:00", command="llm2llm run …")"""

    pid: int
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
    if "://" in run_folder and not run_folder.startswith("file://"):
        yield
        return
    folder = Path(run_folder.removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    # "a+": opening must not clear the holder's text. The file stays when it is released: removing it would let two
    # processes lock two files of the same name.
    with open(folder / "lease", "a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"run {folder} is being driven by {_holder(stream)}; stop it or wait") from None
        stream.truncate(0)
        stream.write(_self().encode())
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def _self() -> str:
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv),
        }
    )


def holder(run_folder: str) -> Holder | None:
    """Who drives the run now; None when nobody does. Looks only: a lock tried here could turn a starting driver away.

    A holder on another host is believed, one on this host must be alive.
    """
    if "://" in run_folder and not run_folder.startswith("file://"):
        return None
    path = Path(run_folder.removeprefix("file://")) / "lease"
    if not path.exists():
        return None
    found = _read(path.read_bytes())
    return found if found is not None and (not found.here or Path(f"/proc/{found.pid}").exists()) else None


def _read(text: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except ValueError:
        return None


def _holder(stream: BinaryIO) -> str:
    stream.seek(0)
    return str(_read(stream.read()) or "another process (it is just starting)")
