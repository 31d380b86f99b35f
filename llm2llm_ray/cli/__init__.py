"""The command line: parses and delegates.

Exit codes: 0 done, 2 the user's mistake, 75 what the run needs is away and the same command goes on later, 143 stopped on
request, 1 ours.
"""

from __future__ import annotations

import sys

import typer

from llm2llm_ray.cli.doctor_command import doctor
from llm2llm_ray.cli.gc_command import gc
from llm2llm_ray.cli.init_command import init
from llm2llm_ray.cli.result_commands import compare, export, report
from llm2llm_ray.cli.run_commands import evaluate, run
from llm2llm_ray.cli.scale_command import scale_teacher
from llm2llm_ray.cli.stop_command import stop
from llm2llm_ray.cli.study_command import study
from llm2llm_ray.cli.tasks_command import tasks
from llm2llm_ray.cli.terminal import errors
from llm2llm_ray.cli.watch_commands import logs, ls, status
from llm2llm_ray.errors import TemporaryFailure, UserError
from llm2llm_ray.terminal_text import shown_lines

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

for command in (init, run, study, evaluate, tasks, doctor, status, ls, logs, stop, scale_teacher, report, compare, export, gc):
    app.command()(command)


def main() -> None:
    try:
        app()
    except UserError as error:
        errors.print(f"error: {shown_lines(error)}", soft_wrap=True)
        sys.exit(2)
    except TemporaryFailure as failure:
        errors.print(f"stopped: {shown_lines(failure)}", soft_wrap=True)
        sys.exit(75)
