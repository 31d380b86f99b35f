"""A run's plan, as `llm2llm run --dry-run` told it before, beside what the run came to.

    python -m benchmarks.runs.plan_vs_actual jobs/demo.yaml [--set K=V ...] [--run FOLDER] [--json FILE]

The plan may not know the run it is compared with: its seconds come from rates.KNOWN, or with `--rates-of RUN` from another
run. Exit code 1 when a sum (updates, answers, calls, tokens, seconds) is not within a factor of two.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring.measurement import command as command_line
from benchmarks.measuring.environment import environment
from rich.console import Console
from rich.table import Table

from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.planning.plan import Plan, Range, plan
from llm2llm_ray.planning.plan_table import COUNTS, render_plan, shown
from llm2llm_ray.planning.rates import Rates, known, measured
from llm2llm_ray.preflight import check
from llm2llm_ray.timing.timeline import Activity, timeline

_FACTOR = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One quantity, planned and as it came. Example: Compared(name="updates", planned=Range(…), actual=48.0)"""

    name: str
    planned: Range | None
    actual: float
    is_sum: bool = True
    """Of the whole run, not of one stage."""

    @property
    def ratio(self) -> float | None:
        """Planned over actual; None where one of them is missing or zero."""
        return self.planned.expected / self.actual if self.planned and self.planned.expected and self.actual else None

    @property
    def within(self) -> bool | None:
        """Whether the expected value is within a factor of two; None where there is no ratio."""
        return None if self.ratio is None else 1 / _FACTOR <= self.ratio <= _FACTOR


def compare_plan(plan: Plan, run: RunRecord) -> list[Compared]:
    """Sums first (updates, answers, teacher calls, tokens, seconds), then the seconds of every stage. What a run did in
    several sessions is added up; a run that has not finished compares with less than its plan."""
    found = timeline(run)
    activities = found.activities
    actual = {
        "updates": sum(a.updates for a in activities),
        "answers": sum(a.student.requests for a in activities),
        "teacher calls": sum(a.teacher.requests for a in activities),
        "votes": sum(a.judge.requests for a in activities),
        "tokens": sum(a.tokens for a in activities),
    }
    sums = [Compared(name=name, planned=plan.total(of), actual=actual[name]) for name, of in COUNTS.items()]
    trained, asked = plan.total(lambda a: a.trained_tokens), plan.total(lambda a: a.tokens - a.trained_tokens)
    sums.append(Compared(name="tokens trained on", planned=trained, actual=sum(a.trained_tokens for a in activities)))
    requests = sum(a.student.tokens + a.teacher.tokens + a.judge.tokens for a in activities)
    sums.append(Compared(name="tokens of requests", planned=asked, actual=requests))
    sums.append(Compared(name="seconds", planned=plan.seconds, actual=found.wall_seconds))
    named = [(activity, _name(activity, activities)) for activity in activities]
    stages = [
        Compared(
            name=f"{step.group}, {step.name}: seconds",
            planned=step.seconds,
            actual=sum(a.phase.seconds for a, name in named if name == (step.group, step.name)),
            is_sum=False,
        )
        for step in plan.steps
    ]
    around = sum(a.phase.seconds for a in activities if a.phase.group == "around")
    return [*sums, *stages, Compared(name="around: seconds", planned=plan.around_seconds, actual=around, is_sum=False)]


def _name(activity: Activity, activities: Sequence[Activity]) -> tuple[str, str]:
    """As a plan's step is called: the exams of the first and last student have no other mark than their weights."""
    who = activity.who or ""
    if who.startswith("student "):
        last = max(int(a.who.split()[1]) for a in activities if a.who and a.who.startswith("student "))
        who = "kept" if who == f"student {last}" and last else "first"
    return activity.phase.group, f"{activity.phase.name} ({who})" if who else activity.phase.name


def render_comparison(compared: Sequence[Compared], console: Console) -> None:
    table = Table(title="planned and actual")
    for name in ("", "planned", "actual", "planned / actual", "within a factor of two"):
        table.add_column(name, justify="left" if not name else "right")
    for item in compared:
        planned = shown(item.planned) if item.planned else "-"
        ratio = "-" if item.ratio is None else f"{item.ratio:.2f}"
        within = {None: "-", True: "yes", False: "no"}[item.within]
        table.add_row(item.name, planned, f"{item.actual:,.0f}", ratio, within, style="bold" if item.is_sum else None)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="section.field=value, as the run had it")
    parser.add_argument("--run", help="the run's folder, where it is not the config's")
    parser.add_argument("--rates-of", help="take the rates of this other run")
    parser.add_argument("--json", type=Path, help="write the comparison here")
    given = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)

    def rates(config: Config, device: str) -> Rates | None:
        return measured(RunRecord.open(given.rates_of)) if given.rates_of else known(config, device)

    try:
        config = load_config(given.config, given.overrides)
        planned = plan(config, check(config, given.config.parent), rates=rates)
        run = RunRecord.open(given.run or config.run_path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    compared = compare_plan(planned, run)
    render_plan(planned, console)
    render_comparison(compared, console)
    if run.state != "finished":
        console.print(f"The run is {run.state}: it came to less than its plan.")
    if given.json:
        given.json.write_text(json.dumps(told(compared, run) | {"argv": command_line().removeprefix("python ")}, indent=1) + os.linesep)
    return 0 if all(item.within is not False for item in compared if item.is_sum) else 1


def told(compared: list[Compared], run: RunRecord) -> dict[str, object]:
    items = [asdict(item) | {"ratio": item.ratio, "within": item.within} for item in compared]
    return {"run": run.name, "state": run.state, "compared": items, "environment": environment()}


if __name__ == "__main__":
    sys.exit(main())
