"""The command line: parses and delegates. Exit codes: 0 done, 2 the user's mistake, 1 ours, 143 stopped on request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llm2llm_ray.config_file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.preflight import check
from llm2llm_ray.tasks import TASKS

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_errors = Console(stderr=True, highlight=False, markup=False)

_LOG_WIDTH = 150  # a log has no width of its own, and 80 columns break the tables

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of the run (see jobs/).")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.field=value; may be given again.")]


@app.command()
def run(config: ConfigFile, set_: Overrides = None) -> None:
    """Run the loop; the same command again goes on where it stopped."""
    resolved = load_config(config, set_)
    checked = check(resolved, config.parent)  # before the slow imports: a mistake is told at once
    from llm2llm_ray.progress import Progress
    from llm2llm_ray.runtime.launch import Interrupted, launch
    from llm2llm_ray.summary import render

    with Progress(resolved) as progress:
        try:
            report = launch(resolved, checked, progress.show)
        except Interrupted as stopped:
            progress.close()
            _errors.print(str(stopped))
            raise typer.Exit(143) from None
    render(report, resolved, _console())


@app.command()
def evaluate(
    config: ConfigFile, model: Annotated[str, typer.Option(help="Model folder or id to examine.")], set_: Overrides = None
) -> None:
    """Read the test set with one model: a folder under <run>/students, or any other."""
    resolved = load_config(config, set_)
    checked = check(resolved, config.parent)  # before the slow imports: a mistake is told at once
    from llm2llm_ray.progress import Progress
    from llm2llm_ray.runtime.examine import examine
    from llm2llm_ray.summary import render_exam

    with Progress(resolved) as progress:
        told = examine(resolved, checked, model, progress.show)
    render_exam(told, _console())


@app.command()
def tasks() -> None:
    """The built-in tasks: columns, metric, what they are."""
    console = _console()
    for task in TASKS.values():
        console.print(f"[bold]{task.name}[/]  columns: {', '.join(task.columns)}  metric: {task.metric}\n    {task.about}")


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _LOG_WIDTH)


def main() -> None:
    try:
        app()
    except UserError as error:
        _errors.print(f"error: {error}", soft_wrap=True)
        sys.exit(2)
