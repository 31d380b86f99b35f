"""`study`: methods x draws x run seeds x seed sizes, each a run, in one session."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm2llm_ray.cli.terminal import console, errors
from llm2llm_ray.study.plan import PlannedStudy
from llm2llm_ray.study.spec import load_spec
from llm2llm_ray.terminal_text import shown


def study(
    spec: Annotated[Path, typer.Argument(help="YAML file of the study (docs/study.md).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the cells, and start nothing.")] = False,
) -> None:
    """Compare methods over draws of the seed set; the same command again runs the cells that are not finished.

    Example: llm2llm study studies/trec.yaml
    """
    planned = PlannedStudy(*load_spec(spec))
    planned.check()
    screen = console(markup=False)
    if dry_run:
        for cell in planned.cells:
            screen.print(shown(cell.name))
        screen.print(f"{len(planned.cells)} cells", soft_wrap=True)
        return
    from llm2llm_ray.history.progress import Progress
    from llm2llm_ray.report import write_study_page
    from llm2llm_ray.runtime.driver.following import Interrupted
    from llm2llm_ray.runtime.driver.study import results, run_study
    from llm2llm_ray.storage.files import Files
    from llm2llm_ray.study.kept import keep
    from llm2llm_ray.study.results import graded_rows
    from llm2llm_ray.study.shown import render
    from llm2llm_ray.study.table import table

    with Progress(planned.config(planned.cells[0])) as progress:
        try:
            run_study(planned, progress.show)
        except Interrupted as stopped:
            progress.close()
            errors.print(str(stopped))
            raise typer.Exit(143) from None
    done = results(planned)
    found = table(planned.spec, [result for *_, result in done])
    render(found, screen)
    files = Files(planned.spec.path)
    rows = (row for cell, run, _ in done for row in graded_rows(run, cell))
    for place in (*keep(files, found, rows), write_study_page(files, found)):
        screen.print(shown(place), soft_wrap=True)
