"""`stop`: SIGTERM to the process that drives a run, once it is sure to be that process. The run drains and can go on later."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Annotated

import typer

from llm2llm_ray.cli.run_argument import Run, find_run
from llm2llm_ray.cli.terminal import console
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.storage.lease import Holder, is_driver
from llm2llm_ray.terminal_text import shown

WAIT_S = 90.0
"""A drain takes up to 45 s for what is in flight, then engines and Ray are shut down."""
_TOLD_EVERY_S = 5.0


def stop(run: Run, wait: Annotated[float, typer.Option(help="Seconds to wait for the run to drain.", min=0)] = WAIT_S) -> None:
    """Stop a run: what is in flight is stored, and the same `llm2llm run` goes on later. Nothing durable is lost.

    Example: llm2llm stop demo
    """
    record, screen = find_run(run), console(markup=False)
    name, holder = shown(record.name), record.holder
    if holder is None and record.state == "unknown":
        raise UserError(_not_told(record))
    if holder is None:
        screen.print(f"{name} is not running ({record.state}).")
        return
    if not holder.here:
        raise UserError(_elsewhere(record, holder))
    process = _open(holder)
    try:
        if process is None or not is_driver(holder):
            screen.print(f"{name} ended just now by itself.")
            return
        try:
            signal.pidfd_send_signal(process, signal.SIGTERM)
        except PermissionError:
            raise UserError(f"pid {holder.pid} belongs to another user; ask its owner, or stop it as that user") from None
        began = time.monotonic()
        while not _ended(process, min(_TOLD_EVERY_S, max(0.0, began + wait - time.monotonic()))):
            waited = time.monotonic() - began
            if waited >= wait:
                screen.print(
                    f"{name} still drains after {waited:.0f} s (pid {holder.pid}). Ask again later; "
                    f"`kill -9 {holder.pid}` loses nothing that is durable."
                )
                raise typer.Exit(1)
            screen.print(f"{name}: stopping, {waited:.0f} s of at most {wait:.0f} s")
    finally:
        if process is not None:
            os.close(process)
    screen.print(f"{name}: {RunRecord(record.files).state}. The same `llm2llm run` goes on from here.")


def _open(holder: Holder) -> int | None:
    """A handle on the process: what it names stays the same even if the process ends and its number is given again."""
    try:
        return os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return None


def _ended(process: int, seconds: float) -> bool:
    return bool(select.select([process], [], [], seconds)[0])


_STOP_A_JOB = (
    "if it was submitted to a cluster, `ray job list --address http://HEAD:8265` names it and "
    "`ray job stop SUBMISSION_ID --address http://HEAD:8265` stops it"
)


def _elsewhere(record: RunRecord, holder: Holder) -> str:
    return (
        f"{record.name} is driven by pid {holder.pid} on host {holder.host}, not on this one: there, `kill -TERM {holder.pid}`; "
        f"{_STOP_A_JOB}"
    )


def _not_told(record: RunRecord) -> str:
    return (
        f"{record.name}: {record.files.root} is no path, so nothing there says which process drives the run; end its "
        f"`llm2llm run` with Ctrl-C or SIGTERM where it was started; {_STOP_A_JOB}"
    )
