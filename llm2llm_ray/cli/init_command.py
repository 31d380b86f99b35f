"""`init`: a config out of a file of labelled rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llm2llm_ray.cli.run_commands import show_plan
from llm2llm_ray.cli.terminal import console, errors
from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.columns import Question
from llm2llm_ray.starting.project import Wanted, start
from llm2llm_ray.terminal_text import shown


def init(
    file: Annotated[Path, typer.Argument(help="Your labelled rows: .csv, .tsv, .jsonl or .parquet.")],
    text: Annotated[str | None, typer.Option(help="Column of the texts (or questions).")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the labels (or worked answers).")] = None,
    dev: Annotated[Path | None, typer.Option(help="File of the dev rows; none: split off.")] = None,
    test: Annotated[Path | None, typer.Option(help="File of the test rows; none: split off.")] = None,
    dev_rows: Annotated[int | None, typer.Option(help="Rows to split off for dev; 0: none.")] = None,
    test_rows: Annotated[int | None, typer.Option(help="Rows to split off for the test; 0: none.")] = None,
    split_seed: Annotated[int, typer.Option(help="Another number splits otherwise.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the run; writes NAME.yaml and NAME-data/ here.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Where the file is not UTF-8: cp1252, utf-16-le, ...")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write anew what is there already.")] = False,
) -> None:
    """Look at a file, split it, and write the config of a run with it; then show its plan. Asks what the file does not settle.

    Example: llm2llm init tickets.csv
    """
    started = start(
        Wanted(
            file=file, text=text, label=label, dev=dev, test=test, dev_rows=dev_rows, test_rows=test_rows,
            split_seed=split_seed, name=name, encoding=encoding, force=force,
        ),
        _choose,
        Path(),
    )  # fmt: skip
    screen = console(markup=False)
    for line in started.told:
        screen.print(shown(line), soft_wrap=True)
    show_plan(started.config)
    screen.print(f"Next: read {started.config}, name a teacher in it, then: llm2llm run {started.config}", soft_wrap=True)


def _choose(question: Question) -> str:
    """Asked on a terminal only."""
    names = [name for name, _ in question.candidates]
    if not sys.stdin.isatty():
        told = "; ".join(f"{name}: {why}" for name, why in question.candidates)
        raise UserError(f"{question.asked} Not certain between {told}. Name it with {question.flag} COLUMN")
    errors.print(question.asked)
    for number, (name, why) in enumerate(question.candidates, 1):
        errors.print(f"  {number}. {shown(name)}: {shown(why)}", soft_wrap=True)
    while True:
        said = str(typer.prompt(f"Number or name ({question.flag})", err=True)).strip()
        if said in names:
            return said
        if said.isascii() and said.isdigit() and 1 <= int(said) <= len(names):
            return names[int(said) - 1]
