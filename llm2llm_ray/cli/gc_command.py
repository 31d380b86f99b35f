"""`gc`: what a run keeps, what can go, and with --yes, its removal."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

import typer
from rich.table import Table

from llm2llm_ray.cli.run_argument import Run, find_run
from llm2llm_ray.cli.terminal import console, size
from llm2llm_ray.history.retention import Item, inventory, remove
from llm2llm_ray.terminal_text import shown


def gc(
    run: Run, yes: Annotated[bool, typer.Option("--yes", help="Delete what can go; without it nothing is touched.")] = False
) -> None:
    """What a run keeps, by kind with sizes, and what can go.

    That is: checkpoints of finished trainings, students but the last and the best, rounds that were cut short, exams that are not
    in the report. Versions and replies never go, and nothing that an unfinished run still reads.

    Example: llm2llm gc demo, then llm2llm gc demo --yes
    """
    record, screen = find_run(run), console(markup=False)
    items = inventory(record)
    screen.print(f"{shown(record.name)}: {record.state}")
    screen.print(_table(items))
    going = [item for item in items if item.can_go]
    if not going:
        screen.print("Nothing can go.")
        return
    for item in going:
        screen.print(f"  {shown(item.path)}  {size(item.bytes)}  {item.why}", soft_wrap=True)
    if yes:
        screen.print(f"Removed {len(going)}, {size(remove(record, items))} freed.")
    else:
        screen.print(f"{size(sum(item.bytes for item in going))} can go; `llm2llm gc {shown(run)} --yes` removes it.")


def _table(items: list[Item]) -> Table:
    kinds: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        kinds[item.kind].append(item)
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "size", "can go", "what stays, and why"):
        table.add_column(name, justify="left" if name in ("kind", "what stays, and why") else "right")
    for kind, found in sorted(kinds.items(), key=lambda pair: -sum(item.bytes for item in pair[1])):
        free = sum(item.bytes for item in found if item.can_go)
        why = "; ".join(dict.fromkeys(item.why for item in found if not item.can_go))
        table.add_row(kind, size(sum(item.bytes for item in found)), size(free) if free else "-", why or "-")
    return table
