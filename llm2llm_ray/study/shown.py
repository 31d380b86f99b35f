"""A study in a terminal: a table per seed size, and a sentence for each comparison that it was made for."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from llm2llm_ray.study.statistics import Estimate, Power
from llm2llm_ray.study.table import Line, StudyTable
from llm2llm_ray.terminal_text import shown

_COLUMNS = (
    "method", "cells", "accuracy", "95 % interval", "minus matched baseline", "minus random targets", "updates", "rows", "new",
    "accepted", "teacher tokens", "s/cell",
)  # fmt: skip
_WHO = {"untrained": "untrained student", "teacher": "teacher itself"}


def render(found: StudyTable, console: Console) -> None:
    for size in dict.fromkeys(line.size for line in found.lines):
        console.print(_table(found, size))
    for sentence in sentences(found):
        console.print(sentence, soft_wrap=True)


def _table(found: StudyTable, size: int | None) -> Table:
    of = "" if size is None else f", {size} seed rows{' of each class' if found.size_of == 'task.seeds_per_class' else ''}"
    table = Table(title=f"study {shown(found.name)}{of}", title_justify="left")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "method" else "right")
    for line in found.lines:
        if line.size == size:
            table.add_row(*_cells(line))
    for one in found.beside:
        if one.size == size:
            value = one.accuracy
            table.add_row(_WHO[one.who], "", f"{value.value:.3f}", f"{value.low:.3f} to {value.high:.3f}", *[""] * 8)
    return table


def _cells(line: Line) -> Iterator[str]:
    yield shown(line.label)
    yield f"{line.cells}/{line.planned}"
    yield f"{line.accuracy.value:.3f}"
    yield f"{line.accuracy.low:.3f} to {line.accuracy.high:.3f}"
    yield points(line.over_baseline)
    yield points(line.over_random)
    yield f"{line.updates:.0f}"
    yield f"{line.rows:.0f}"
    yield f"{line.accepted:.0f}"
    yield "-" if line.acceptance is None else f"{100 * line.acceptance:.0f} %"
    yield f"{line.tokens:,.0f}"
    yield f"{line.seconds:.0f}"


def points(estimate: Estimate | None) -> str:
    """Example: "+5.2 (+1.1 to +9.4)", in percentage points."""
    if estimate is None:
        return "-"
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def sentences(found: StudyTable) -> list[str]:
    """What the study shows, and what would settle the rest."""
    told = [
        f"{line.label}{_of(line)} {_verdict(difference)} {against}: {points(difference)} points.{_more(difference, more)}"
        for line in found.lines
        for difference, more, against in (
            (line.over_baseline, line.baseline_power, "the seeds alone at as many updates"),
            (line.over_random, line.random_power, "equally many rows for random seeds"),
        )
        if difference is not None
    ]
    if found.draws == 1:
        told.append("One draw of the seed set: the intervals say nothing of other seed sets.")
    if found.finished < found.planned:
        told.append(f"{found.finished} of {found.planned} cells are finished; the same command runs the others.")
    return told


def _of(line: Line) -> str:
    return "" if line.size is None else f" ({line.size} seed rows)"


def _verdict(difference: Estimate) -> str:
    if not difference.settled:
        return "is not shown to differ from"
    return "is better than" if difference.value > 0 else "is worse than"


def _more(difference: Estimate, found: Power | None) -> str:
    if difference.settled or found is None or found.more is None:
        return ""
    if found.more == 0:
        return " A difference as large as this one would be found in 80 of 100 such studies."
    return f" About {found.more} more draws would settle a difference as large as this one (80 % power)."
