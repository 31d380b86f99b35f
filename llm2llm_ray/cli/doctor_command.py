"""`doctor`: what is installed, what this machine has, what would run where, and the command that mends what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm2llm_ray.cli.run_commands import Overrides
from llm2llm_ray.cli.terminal import console
from llm2llm_ray.config.file import load_config
from llm2llm_ray.doctor.diagnosis import diagnose, exit_code, render_findings


def doctor(
    config: Annotated[Path | None, typer.Argument(help="YAML file of a run: say what it would need, too.")] = None,
    set_: Overrides = None,
) -> None:
    """Look at versions, devices, memory and disk. Exits with 2 when something must be mended first.

    Example: llm2llm doctor jobs/demo.yaml
    """
    findings = diagnose(load_config(config, set_) if config is not None else None)
    render_findings(findings, console(markup=False))
    raise typer.Exit(exit_code(findings))
