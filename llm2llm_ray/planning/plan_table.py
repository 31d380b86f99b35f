"""A plan in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm2llm_ray.planning.plan import Plan, Range
from llm2llm_ray.planning.workload import Amount
from llm2llm_ray.terminal_text import shown as shown_text

NO_SECONDS = "no measurement; seconds not estimated"
COUNTS: dict[str, Callable[[Amount], float]] = {
    "updates": lambda amount: amount.updates,
    "answers": lambda amount: amount.answers,
    "teacher calls": lambda amount: amount.calls,
    "votes": lambda amount: amount.votes,
    "tokens": lambda amount: amount.tokens,
}
"""Votes only where there are any."""


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
    told = {name: of for name, of in COUNTS.items() if name != "votes" or plan.total(of).high}
    for name in ("", "stage", "rows", *told, "seconds"):
        table.add_column(name, justify="left" if name in ("", "stage") else "right")
    group = ""
    for step in plan.steps:
        counts = (shown(step.range(of)) for of in told.values())
        rows = shown(step.range(lambda amount: amount.rows))
        seconds = shown(step.seconds) if step.seconds else "?"
        table.add_row(step.group if step.group != group else "", step.name, rows, *counts, seconds)
        group = step.group
    around = shown(plan.around_seconds) if plan.around_seconds else "?"
    table.add_row("around", "start, engines, report", *([""] * (1 + len(told))), around)
    totals = (shown(plan.total(of)) for of in told.values())
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
    if plan.advice:
        yield "Change first:"
    for line in plan.advice:
        yield f"- {shown_text(line)}"
