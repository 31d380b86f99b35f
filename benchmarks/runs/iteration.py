"""Where the time of a run goes: seconds, rows, tokens, requests in flight and idle share of every phase, as a table and JSON.

    python -m benchmarks.runs.iteration runs/demo [--json FILE]                  reads a run, finished or not
    python -m benchmarks.runs.iteration --config jobs/demo.yaml [--set K=V ...]  runs it first, and measures the command from outside

What the columns mean is said in llm2llm_ray/timing/timeline.py. With --config the phases are checked against the wall time of the
command itself, which they do not come from; exit code 1 when they do not add up to it within 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring.measurement import command as command_line
from benchmarks.measuring.environment import environment, stolen_seconds
from rich.console import Console
from rich.table import Table

from llm2llm_ray.config.file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.timing.phases import BETWEEN
from llm2llm_ray.timing.timeline import Activity, Flight, Timeline, Total, timeline

TOLERANCE = 0.05
_COLUMNS = (
    "stage", "seconds", "rows", "updates", "tokens", "tokens/s", "student in flight", "teacher in flight", "both s", "idle",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One run of the command, seen from outside. Unix seconds."""

    line: str
    started: float
    ended: float
    exit_code: int
    stolen_seconds: float | None
    """Processor seconds that the host took from this machine meanwhile, over all cores."""


def run(config: Path, overrides: list[str]) -> tuple[str, Command]:
    """Run `llm2llm run` in a process of its own; the run's folder and what was seen of the process."""
    folder = load_config(config, overrides).run_path
    line = [sys.executable, "-m", "llm2llm_ray", "run", str(config)]
    line += [part for override in overrides for part in ("--set", override)]
    stolen, started = stolen_seconds(), time.time()
    done = subprocess.run(line, check=False)
    ended, after = time.time(), stolen_seconds()
    taken = None if stolen is None or after is None else after - stolen
    return folder, Command(
        line=shlex.join(["llm2llm", *line[3:]]), started=started, ended=ended, exit_code=done.returncode, stolen_seconds=taken
    )


def told(found: Timeline, command: Command | None) -> dict[str, Any]:
    """The whole measurement as JSON."""
    return {
        "run": found.run,
        "environment": environment(),
        "environment_of": "the machine and checkout that " + ("made the run" if command else "read the run, now"),
        "command": asdict(command) if command else None,
        "wall_seconds": found.wall_seconds,
        "added_up": added_up(found, command),
        "sessions": found.sessions,
        "groups": [asdict(group) | {"idle_share": group.idle_share} for group in [*found.groups(), found.total("all")]],
        "phases": [
            asdict(activity)
            | {"seconds": a_phase.seconds, "tokens": activity.tokens, "tokens_per_s": activity.tokens_per_s}
            | {"idle_share": activity.idle_share}
            for activity in found.activities
            for a_phase in [activity.phase]
        ],
    }


def added_up(found: Timeline, command: Command | None) -> dict[str, Any] | None:
    """The phases of the command's session against its wall time from outside: before the first and after the last event there
    is the import of the command, the models' sha, and the engines' and Ray's end."""
    if command is None:
        return None
    mine = [a.phase for a in found.activities if a.phase.started >= command.started - 1 and a.phase.ended <= command.ended + 1]
    wall, seconds = command.ended - command.started, sum(phase.seconds for phase in mine)
    before = mine[0].started - command.started if mine else None
    after = command.ended - mine[-1].ended if mine else None
    return {
        "command_wall_seconds": wall, "phases_seconds": seconds, "share": seconds / wall,
        "before_first_event_s": before, "after_last_event_s": after,
    }  # fmt: skip


def table(found: Timeline) -> Table:
    shown = Table(title=f"run {found.run}: {found.wall_seconds:.1f} s in {len(found.sessions)} session(s)")
    for name in _COLUMNS:
        shown.add_column(name, justify="left" if name == "stage" else "right")
    for total in found.groups():
        mine = [activity for activity in found.activities if activity.phase.group == total.name]
        for activity in mine:
            if activity.phase.name != BETWEEN:
                shown.add_row(*_row(activity))
        between = sum(activity.phase.seconds for activity in mine if activity.phase.name == BETWEEN)
        shown.add_row(BETWEEN, f"{between:.2f}")
        shown.add_row(*_sum(total), style="bold", end_section=True)
    shown.add_row(*_sum(found.total("all")), style="bold")
    return shown


def _sum(total: Total) -> list[str]:
    return [
        total.name, f"{total.seconds:.1f}", "", "", str(total.tokens), _rate(total.tokens, total.seconds), "", "",
        f"{total.overlap_seconds:.1f}", f"{total.idle_share:.0%}",
    ]  # fmt: skip


def _row(activity: Activity) -> list[str]:
    phase = activity.phase
    name = phase.name + (f" ({activity.who})" if activity.who else "") + ("" if phase.finished else ", broken off")
    return [
        name, f"{phase.seconds:.1f}", _or_dash(activity.rows), _or_dash(activity.updates or None),
        _or_dash(activity.tokens or None), _rate(activity.tokens, phase.seconds), _flight(activity.student),
        _flight(activity.teacher), f"{activity.overlap_seconds:.1f}" if activity.overlap_seconds else "-",
        f"{activity.idle_share:.0%}" if activity.timed else "?",
    ]  # fmt: skip


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f}" if tokens and seconds else "-"


def _flight(flight: Flight) -> str:
    """Requests answered, and how many were open at once: mean and peak."""
    if not flight.requests:
        return "-"
    if not flight.peak:
        return f"{flight.requests}: ?"
    return f"{flight.requests}: {'~' if flight.approximate else ''}{flight.mean:.1f}, peak {flight.peak}"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def notes(found: Timeline, command: Command | None) -> list[str]:
    lines = [
        "in flight: requests answered, then how many were open at once (mean while any was, and peak). "
        "idle: no optimizer update and no open request; imports, loading and export are idle.",
    ]
    if any(flight.approximate for a in found.activities for flight in (a.student, a.teacher)):
        lines.append("~ this run's replies do not say when they were sent: rows in hand are counted instead, which also wait.")
    rounds = [a for a in found.activities if a.early_teacher_share is not None]
    if rounds:
        shares = ", ".join(f"{a.early_teacher_share:.2f}" for a in rounds)
        calls = ", ".join(f"{a.first_call_s:.2f} s" for a in rounds)
        lines.append(f"teacher rows begun before the student's last answer: {shares}; first call after the first wrong: {calls}")
    sums = added_up(found, command)
    if sums and command:
        lines.append(
            f"phases add up to {sums['phases_seconds']:.1f} s of the command's {sums['command_wall_seconds']:.1f} s "
            f"({sums['share']:.1%}); exit code {command.exit_code}; the host took {command.stolen_seconds or 0:.0f} CPU seconds"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run folder")
    parser.add_argument("--config", type=Path, help="run this config first")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="section.field=value, with --config")
    parser.add_argument("--json", type=Path, help="write the measurement here")
    given = parser.parse_args()
    if bool(given.run) == bool(given.config):
        parser.error("give a run folder or --config, one of them")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    command = None
    try:
        if given.config:
            given.run, command = run(given.config, given.overrides)
        found = timeline(RunRecord.open(given.run))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(table(found))
    for line in notes(found, command):
        console.print(line, markup=False, soft_wrap=True)
    if given.json:
        given.json.write_text(json.dumps(told(found, command) | {"argv": command_line().removeprefix("python ")}, indent=1) + os.linesep)
    sums = added_up(found, command)
    return 0 if sums is None or abs(1 - sums["share"]) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
