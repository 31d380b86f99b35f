"""`run` and `evaluate`: what starts Ray and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm2llm_ray.asking.recorded import About
from llm2llm_ray.cli.terminal import console, errors
from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.machine import this_machine
from llm2llm_ray.planning.memory import memory_warning
from llm2llm_ray.planning.plan import plan
from llm2llm_ray.planning.plan_table import render_plan
from llm2llm_ray.preflight import Checked, check
from llm2llm_ray.terminal_text import shown

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of the run (see jobs/).")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.field=value; may be given again.")]


def run(
    config: ConfigFile,
    set_: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the run would take, and start nothing.")] = False,
) -> None:
    """Run the loop; the same command again goes on where it stopped.

    Example: llm2llm run jobs/demo.yaml --dry-run
    """
    if dry_run:
        show_plan(config, set_)
        return
    resolved, checked = _looked_at(config, set_)
    for line in plan(resolved, checked).advice:
        errors.print(f"warning: {shown(line)}", soft_wrap=True)
    from llm2llm_ray.history.progress import Progress
    from llm2llm_ray.history.summary import render
    from llm2llm_ray.runtime.driver.following import Interrupted
    from llm2llm_ray.runtime.driver.launch import launch

    with Progress(resolved) as progress:
        try:
            report = launch(resolved, checked, progress.show)
        except Interrupted as stopped:
            progress.close()
            errors.print(str(stopped))
            raise typer.Exit(143) from None
    render(report, resolved, console())


def show_plan(config: Path, set_: list[str] | None = None) -> None:
    """What a run of this file would take; starts nothing."""
    render_plan(plan(*_looked_at(config, set_)), console(markup=False))


def _looked_at(config: Path, set_: list[str] | None) -> tuple[Config, Checked]:
    """Before the slow imports: a mistake is told at once, and so is what a person should look at."""
    resolved = load_config(config, set_)
    checked = check(resolved, config.parent)
    _warn(resolved)
    if checked.recorded:
        console(markup=False).print(shown(_teacher(resolved, checked.recorded)), soft_wrap=True)
    for line in checked.notices():
        errors.print(shown(line), soft_wrap=True)
    return resolved, checked


def evaluate(
    config: ConfigFile, model: Annotated[str, typer.Option(help="Model folder or id to examine.")], set_: Overrides = None
) -> None:
    """Read the test set with one model: a folder under <run>/students, or any other."""
    resolved = load_config(config, set_)
    checked = check(resolved, config.parent)  # before the slow imports: a mistake is told at once
    _warn(resolved, exam_only=True)
    from llm2llm_ray.history.progress import Progress
    from llm2llm_ray.history.summary import render_exam
    from llm2llm_ray.runtime.driver.evaluate import examine

    with Progress(resolved) as progress:
        told = examine(resolved, checked, model, progress.show)
    render_exam(told, console())


def _teacher(config: Config, about: About) -> str:
    """Example: "Teacher: recorded replies of a model, data/replies.jsonl (256 replies; made …); nobody is asked. …" """
    held = f"{about} ({about.replies} replies{f'; {about.made}' if about.made else ''})"
    if config.teacher.kind == "recorded":
        return f"Teacher: {held}; nobody is asked. With a key or a GPU set teacher.kind to openai or serve."
    return f"Teacher: {config.teacher.model}, asked only for what is not in {held}."


def _warn(config: Config, *, exam_only: bool = False) -> None:
    if told := memory_warning(config, this_machine(), exam_only=exam_only):
        errors.print(f"warning: {shown(told)}", soft_wrap=True)
