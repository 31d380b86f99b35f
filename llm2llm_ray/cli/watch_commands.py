"""`status`, `ls` and `logs`: where runs stand and what they went through. They read only, so they may be asked of a live run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from llm2llm_ray.accuracy import unanswered
from llm2llm_ray.cli.run_argument import RUNS, Run, find_run, run_folders
from llm2llm_ray.cli.terminal import ago, console, duration, errors, size
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.retention import size_on_disk
from llm2llm_ray.history.standing import Standing, standing
from llm2llm_ray.history.summary import asked_about
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.terminal_text import shown

_POLL_S = 1.0
_UNKNOWN = "Whether it runs is not known: an object store keeps no lock that would tell."


def status(run: Run) -> None:
    """Where a run stands: its stage and speed, its rows, and how long ago it last did anything.

    Example: llm2llm status demo
    """
    record = find_run(run)
    screen, now = console(markup=False), standing(record)
    by = f", driven by {shown(record.holder)}" if record.holder else ""
    screen.print(f"{shown(record.name)}: {now.state}{by}")
    for name, value in (
        ("stage", " · ".join(_stage(now))),
        ("iterations", f"{now.iterations_done} of {now.iterations} done"),
        ("rows", f"{now.rows}: {now.seeds} seeds, {max(0, now.rows - now.seeds)} written by the teacher"),
        ("accuracy", _accuracy(now)),
        ("last sign of life", ago(now.last_sign)),
    ):
        screen.print(f"  {name:<18} {value}")
    if now.state in ("stopped", "broken off"):
        screen.print("  The same `llm2llm run` goes on from here.")
    elif now.state == "unknown":
        screen.print(f"  {_UNKNOWN}")


def ls(
    folder: Annotated[Path, typer.Argument(help="Where runs are kept.")] = Path(RUNS),
) -> None:
    """The runs in a folder: state, iterations done, rows, accuracy of the kept student, age, size.

    Example: llm2llm ls runs
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder that holds run folders (run.folder in the config)")
    found = run_folders(folder)
    screen = console(markup=False)
    if not found:
        screen.print(f"No run in {shown(folder)}/.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("run", "state", "iterations", "rows", "accuracy", "last sign of life", "size"):
        table.add_column(name, justify="left" if name in ("run", "state") else "right")
    damaged = []
    for path in found:
        try:
            row = _row(path)
        except UserError as error:  # one damaged run must not hide the others
            row = ("unreadable", "-", "-", "-", "-")
            damaged.append(str(error))
        table.add_row(shown(path.name), *row, size(size_on_disk(path)))
    screen.print(table)
    for told in damaged:
        errors.print(shown(told), soft_wrap=True)


def _row(path: Path) -> tuple[str, ...]:
    now = standing(RunRecord.open(str(path)))
    done = f"{now.iterations_done}/{now.iterations}"
    return now.state, done, str(now.rows), f"{now.accuracy['value']:.3f}" if now.accuracy else "-", ago(now.last_sign)


def _stage(now: Standing) -> Iterator[str]:
    if now.iteration is not None:
        yield f"iteration {now.iteration + 1}/{now.iterations}"
    yield now.stage
    yield from now.progress
    if now.since is not None and now.state == "running":
        yield f"began {ago(now.since)}"


def _accuracy(now: Standing) -> str:
    if now.accuracy is None:
        return "not yet: the test set is read at the end of the run"
    found = now.accuracy
    missing = f", {count} of {found['total']} unanswered" if (count := unanswered(found)) else ""
    return (
        f"{found['value']:.3f} (95 % interval {found['low']:.3f} to {found['high']:.3f}){missing}, kept student on the test set"
    )


def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends (or Ctrl-C).")] = False,
    raw: Annotated[bool, typer.Option("--json", help="The events as they are kept, one JSON object a line.")] = False,
) -> None:
    """What happened in a run, one line per event.

    Example: llm2llm logs demo -f
    """
    record = find_run(run)
    screen, told = console(markup=False), 0
    if follow and record.state == "unknown":
        errors.print(f"{_UNKNOWN} Following until it has finished, or Ctrl-C.", soft_wrap=True)
    try:
        while True:
            state = record.state  # asked before the events are read, so that the last ones are told too
            found = list(Events(record.files).read())
            for event in found[told:]:
                screen.print(json.dumps(event) if raw else event_line(event), soft_wrap=True)
            told = len(found)
            if not (follow and state in ("running", "unknown")):
                return
            time.sleep(_POLL_S)
            record = RunRecord(record.files)  # it remembers what it has read
    except KeyboardInterrupt:
        return


def event_line(event: Mapping[str, Any]) -> str:
    """Example: "13:35:11 stage_finished stage=train iteration=0"."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    return f"{when} {shown(event['event']):<14} {_iteration(event) if event['event'] == 'iteration' else _fields(event)}".rstrip()


def _fields(event: Mapping[str, Any]) -> str:
    """Keys are cut to the digits that file names have; what is empty is left out."""
    told = []
    for name, value in event.items():
        if name in ("time", "event") or value in (None, "", [], {}):
            continue
        text = value[:12] if name in ("key", "version") and isinstance(value, str) else value
        told.append(f"{name}={json.dumps(text, ensure_ascii=False) if isinstance(text, dict | list) else text}")
    return shown(" ".join(told))


def _iteration(event: Mapping[str, Any]) -> str:
    round_, grown = event["round"], event["grown"]
    after = f", {grown['num_rows']} rows after it" if grown else ""
    missing = f" and {count} unanswered" if (count := unanswered(round_)) else ""
    seconds = ", ".join(f"{name} {duration(value)}" for name, value in event["seconds"].items())
    about = f" about {targets}" if (targets := asked_about(round_)) else ""
    return shown(
        f"{event['index'] + 1}: {event['dataset']['num_rows']} rows, {round_['wrong']} of {round_['evaluated']} wrong{missing}, "
        f"{round_['asked']} asked{about}, {round_['accepted']} accepted{after} ({seconds})"
    )
