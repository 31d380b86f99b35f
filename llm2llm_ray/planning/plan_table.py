"""A plan in a terminal, and a plan beside what its run then came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm2llm_ray.planning.plan import Plan, Range
from llm2llm_ray.planning.workload import Amount
from llm2llm_ray.record import RunRecord
from llm2llm_ray.timing.timeline import Activity, timeline

NO_SECONDS = "no measurement; seconds not estimated"
_FACTOR = 2.0
_COUNTS: dict[str, Callable[[Amount], float]] = {
    "updates": lambda amount: amount.updates,
    "answers": lambda amount: amount.answers,
    "teacher calls": lambda amount: amount.calls,
    "tokens": lambda amount: amount.tokens,
}


def render_plan(plan: Plan, console: Console) -> None:
    console.print(_resources(plan))
    console.print(_steps(plan))
    for line in _notes(plan):
        console.print(Text(line), soft_wrap=True)


def _resources(plan: Plan) -> Table:
    device = {"cpu": "on CPU", "gpu": "on GPU", None: "on the cluster's device"}[plan.device]
    table = Table(title=f"run {plan.run}: what runs, {device}")
    for name in ("what", "how many", "CPUs each", "GPUs each", "where"):
        table.add_column(name, justify="left" if name in ("what", "where") else "right")
    for item in plan.resources:
        table.add_row(item.what, str(item.count), f"{item.cpus:g}", f"{item.gpus:g}", Text(item.where))
    cpus, gpus = (sum(item.count * each for item, each in zip(plan.resources, per, strict=True)) for per in _reserved(plan))
    table.add_row("reserved in all", "", f"{cpus:g}", f"{gpus:g}", "", style="bold")
    return table


def _reserved(plan: Plan) -> tuple[list[float], list[float]]:
    return [item.cpus for item in plan.resources], [item.gpus for item in plan.resources]


def _steps(plan: Plan) -> Table:
    table = Table(title="expected, and in brackets from few wrong answers to many")
    for name in ("", "stage", "rows", *_COUNTS, "seconds"):
        table.add_column(name, justify="left" if name in ("", "stage") else "right")
    group = ""
    for step in plan.steps:
        counts = (shown(step.range(of)) for of in _COUNTS.values())
        rows = shown(step.range(lambda amount: amount.rows))
        seconds = shown(step.seconds) if step.seconds else "?"
        table.add_row(step.group if step.group != group else "", step.name, rows, *counts, seconds)
        group = step.group
    around = shown(plan.around_seconds) if plan.around_seconds else "?"
    table.add_row("around", "start, engines, report", *([""] * 5), around)
    totals = (shown(plan.total(of)) for of in _COUNTS.values())
    whole = shown(plan.seconds) if plan.seconds else "?"
    table.add_row("all", "", "", *totals, whole, style="bold")
    return table


def shown(amount: Range) -> str:
    """Whole numbers; the range only where it is one. Example: "12 (9 to 30)"."""
    low, expected, high = (f"{value:,.0f}" for value in (amount.low, amount.expected, amount.high))
    if low == high:
        return expected if expected != "0" else "-"
    return f"{expected} ({low} to {high})"


def _notes(plan: Plan) -> Iterator[str]:
    if plan.seconds:
        low, expected, high = (value / 60 for value in (plan.seconds.low, plan.seconds.expected, plan.seconds.high))
        yield f"Time: about {expected:.0f} minutes ({low:.0f} to {high:.0f})."
    else:
        yield f"Time: {NO_SECONDS}."
    disk = plan.disk
    known = disk.students_gib is not None and disk.checkpoints_gib is not None
    models = (
        f"students {disk.students_gib:.1f} GiB, checkpoints at most {disk.checkpoints_gib:.1f} GiB"
        if known
        else "students and checkpoints: the model's size is not known before it is fetched"
    )
    free = "" if disk.free_gib is None else f"; {disk.free_gib:.0f} GiB are free there"
    yield f"Disk: {models}, rows and replies at most {disk.rows_gib * 1024:.0f} MiB{free}."
    if plan.money:
        yield f"Teacher: {plan.money.expected:.2f} ({plan.money.low:.2f} to {plan.money.high:.2f}) at the configured prices."
    yield "Assumed:"
    for line in plan.assumptions:
        yield f"- {line}"


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
        "tokens": sum(a.tokens for a in activities),
    }
    sums = [Compared(name=name, planned=plan.total(of), actual=actual[name]) for name, of in _COUNTS.items()]
    trained, asked = plan.total(lambda a: a.trained_tokens), plan.total(lambda a: a.tokens - a.trained_tokens)
    sums.append(Compared(name="tokens trained on", planned=trained, actual=sum(a.trained_tokens for a in activities)))
    requests = sum(a.student.tokens + a.teacher.tokens for a in activities)
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
        who = "last" if who == f"student {last}" and last else "first"
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
