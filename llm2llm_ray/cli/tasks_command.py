"""`tasks`: the built-in tasks."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from llm2llm_ray.cli.terminal import console
from llm2llm_ray.tasks import TASKS


def tasks() -> None:
    """The built-in tasks: columns, metric, where the data come from."""
    table = Table(show_lines=True)
    for name in ("task.name", "what is learned", "columns", "metric", "source and licence of the data"):
        table.add_column(name)
    for task in TASKS.values():
        table.add_row(*map(Text, (task.name, task.about, ", ".join(task.columns), task.metric, task.source)))
    screen = console()
    screen.print(table)
    screen.print("On the Hugging Face hub: what to write into task.data, and what reads the columns there:")
    for task in TASKS.values():
        if task.hub:
            screen.print(Text(f"  {task.name}: {task.hub}"))
