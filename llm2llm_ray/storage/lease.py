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
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from llm2llm_ray.errors import UserError


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


def _holder(stream: BinaryIO) -> str:
    stream.seek(0)
    try:
        holder = json.loads(stream.read())
    except ValueError:
        return "another process (it is just starting)"
    return f"pid {holder['pid']} on host {holder['host']} since {holder['started']} ({holder['command']})"
