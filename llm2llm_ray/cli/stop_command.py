"""`stop`: SIGTERM to the process that drives a run, once it is sure to be that process. The run drains and can go on later."""

from __future__ import annotations

import os
import select
import shlex
import signal
import time
from typing import Annotated

import typer

from llm2llm_ray.cli.finding import Run, find_run
from llm2llm_ray.cli.terminal import console, shown
from llm2llm_ray.errors import UserError
from llm2llm_ray.record import RunRecord
from llm2llm_ray.storage.lease import Holder

WAIT_S = 90.0
"""A drain takes up to 45 s for what is in flight, then engines and Ray are shut down."""
_TOLD_EVERY_S = 5.0


def stop(run: Run, wait: Annotated[float, typer.Option(help="Seconds to wait for the run to drain.", min=0)] = WAIT_S) -> None:
    """Stop a run: what is in flight is stored, and the same `llm2llm run` goes on later. Nothing durable is lost.

    Example: llm2llm stop demo
    """
    record, screen = find_run(run), console(markup=False)
    holder = record.holder
    if holder is None:
        screen.print(f"{record.name} is not running ({record.state}).")
        return
    if not holder.here:
        raise UserError(_elsewhere(record, holder))
    process = _open(holder)
    try:
        if process is None or not is_driver(holder):
            raise UserError(
                f"{record.name}: pid {holder.pid} on this host is not `{shown(holder.command)}` (the run died, or the pid is "
                "one of another container); nothing was stopped. Look with `ps`, and start the run again to go on"
            )
        try:
            signal.pidfd_send_signal(process, signal.SIGTERM)
        except PermissionError:
            raise UserError(f"pid {holder.pid} belongs to another user; ask its owner, or stop it as that user") from None
        began = time.monotonic()
        while not _ended(process, min(_TOLD_EVERY_S, max(0.0, began + wait - time.monotonic()))):
            waited = time.monotonic() - began
            if waited >= wait:
                screen.print(
                    f"{record.name} still drains after {waited:.0f} s (pid {holder.pid}). Ask again later; "
                    f"`kill -9 {holder.pid}` loses nothing that is durable."
                )
                raise typer.Exit(1)
            screen.print(f"{record.name}: stopping, {waited:.0f} s of at most {wait:.0f} s")
    finally:
        if process is not None:
            os.close(process)
    screen.print(f"{record.name}: {RunRecord(record.files).state}. The same `llm2llm run` goes on from here.")


def is_driver(holder: Holder) -> bool:
    """Whether the process of that id is the command that took the run, and not a later process with the same id."""
    try:
        with open(f"/proc/{holder.pid}/cmdline", "rb") as stream:
            words = [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]
    except (FileNotFoundError, ProcessLookupError):
        return False
    program, *arguments = shlex.split(holder.command)
    # An interpreter and its options come before the program, which `python -m` names by module, not by path.
    before = words[: len(words) - len(arguments)]
    same_end = words[len(before) :] == arguments
    return same_end and (program in before or ("__main__.py" in program and "llm2llm_ray" in before))


def _open(holder: Holder) -> int | None:
    """A handle on the process: what it names stays the same even if the process ends and its number is given again."""
    try:
        return os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return None


def _ended(process: int, seconds: float) -> bool:
    return bool(select.select([process], [], [], seconds)[0])


def _elsewhere(record: RunRecord, holder: Holder) -> str:
    return (
        f"{record.name} is driven by pid {holder.pid} on host {holder.host}, not on this one: there, `kill -TERM {holder.pid}`; "
        "if it was submitted to a cluster, `ray job list --address http://HEAD:8265` names it and "
        "`ray job stop SUBMISSION_ID --address http://HEAD:8265` stops it"
    )
