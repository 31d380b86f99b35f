"""`scale-teacher`: more or fewer teacher replicas while a run goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from llm2llm_ray.cli.run_argument import Run, find_run
from llm2llm_ray.cli.terminal import console
from llm2llm_ray.terminal_text import shown


def scale_teacher(run: Run, replicas: Annotated[int, typer.Argument(help="Replicas from now on.", min=1)]) -> None:
    """Change the number of teacher replicas of a running run; returns when they are up. No request is lost.

    Example: llm2llm scale-teacher demo 3
    """
    record = find_run(run)
    from llm2llm_ray.runtime import environment

    environment.use_token()
    from llm2llm_ray.runtime.driver.scaling import scale_teacher as scale

    told = scale(record, replicas)
    console(markup=False).print(f"{shown(record.name)}: teacher replicas {told['before']} -> {told['replicas']}")
