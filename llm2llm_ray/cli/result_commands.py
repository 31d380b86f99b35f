"""`report`, `compare` and `export`: what a run came to, to look at, to set beside another, and to hand on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llm2llm_ray.cli.run_argument import Run, find_run
from llm2llm_ray.cli.terminal import console, size
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.comparison import Comparison, Line, compared
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.summary import WHO
from llm2llm_ray.terminal_text import shown


class Part(StrEnum):
    """What of a run is exported."""

    dataset = "dataset"
    student = "student"


def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="Where to write it; without it, into the run folder.")] = None,
) -> None:
    """Write the run's report: one HTML file that needs nothing else. Works on an unfinished run too.

    Example: llm2llm report demo --out demo.html
    """
    record = find_run(run)
    from llm2llm_ray.report import write_report

    console(markup=False).print(shown(write_report(record, str(out) if out else None)), soft_wrap=True)


def compare(run: Run, other: Annotated[str, typer.Argument(metavar="OTHER", help="The run to compare with.")]) -> None:
    """Two runs side by side: settings that differ, accuracies with intervals, rows, tokens, seconds.

    Example: llm2llm compare demo demo-more-rows
    """
    ours, theirs = find_run(run), find_run(other)
    found, screen = compared(ours, theirs), console(markup=False)
    names = (ours.name, theirs.name) if ours.name != theirs.name else (run, other)
    for title, lines in (
        ("settings that differ", found.settings),
        ("accuracy on the test rows (95 % interval)", tuple(_named(line) for line in found.accuracy)),
        ("what they did", found.work),
    ):
        _print(screen, title, lines, names)
    screen.print(_difference(found, names), soft_wrap=True)


def _named(line: Line) -> Line:
    return Line(name=WHO.get(line.name, line.name), ours=line.ours, theirs=line.theirs)


def _print(screen: Console, title: str, lines: tuple[Line, ...], names: tuple[str, str]) -> None:
    if not lines:
        screen.print(f"{title}: none\n")
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", shown(names[0]), shown(names[1])):
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*("-" if value is None else shown(value) for value in (line.name, line.ours, line.theirs)))
    screen.print(table)
    screen.print()


def _difference(found: Comparison, names: tuple[str, str]) -> str:
    if found.last is None:
        return "The kept students cannot be compared: no test row was asked of both."
    value, low, high = (100 * part for part in (found.last.value, found.last.low, found.last.high))
    return (
        f"Kept students on the {found.shared_rows} test rows that both were asked: {shown(names[0])} minus {shown(names[1])} = "
        f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}): {found.last.verdict}. One run each; the spread between "
        "runs with other seeds comes on top."
    )


def _export_replies(record: RunRecord, path: Path) -> None:
    from llm2llm_ray.export.replies import export_replies

    done = export_replies(record, path)
    left_out = f"; {done.left_out} were stored without all of their prompt and are not in it" if done.left_out else ""
    told = f"{done.path}: {done.replies} replies, {size(path.stat().st_size)}{left_out}"
    console(markup=False).print(shown(told), soft_wrap=True)


def export(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="Folder to write to.", show_default="exports/NAME")] = None,
    iteration: Annotated[
        int | None, typer.Option(help="The i of D^i and M^i, from 0.", show_default="the last finished", min=0)
    ] = None,
    only: Annotated[Part | None, typer.Option(help="One of the two instead of both.", show_default="both")] = None,
    no_test: Annotated[bool, typer.Option("--no-test", help="Leave the dev and test rows out of the dataset.")] = False,
    replies: Annotated[
        Path | None, typer.Option(help="Write the teacher's replies to this file, and nothing else.", show_default=False)
    ] = None,
) -> None:
    """Write OUT/dataset (a Hugging Face dataset folder with its card) and OUT/student (a model folder with its card).

    The dataset has the splits train and, unless --no-test is given, validation and test: the run's dev and test rows.

    With --replies it writes one JSONL file (gzipped, if its name ends in .gz) with which anybody repeats the run and needs no
    key (teacher.kind=recorded). It holds the prompts, and so the rows that they show.

    Example: llm2llm export demo --out /tmp/demo --no-test
    """
    record = find_run(run)
    if replies is not None:
        if out or only or no_test or iteration is not None:
            raise UserError("--replies: writes one file and nothing else; give it without --out, --iteration, --only, --no-test")
        _export_replies(record, replies)
        return
    from llm2llm_ray.export.facts import facts
    from llm2llm_ray.export.folders import check_free, export_dataset, export_student

    target = out or Path("exports") / record.name
    parts = [only] if only else list(Part)
    for part in parts:
        check_free(target / part.value)
    told, screen = facts(record, iteration), console(markup=False)
    for part in parts:
        place = target / part.value
        done = export_dataset(told, place, held_out=not no_test) if part is Part.dataset else export_student(told, place)
        rows = ", ".join(f"{split} {count} rows" for split, count in done.rows.items())
        screen.print(f"{shown(done.path)}: {rows + ', ' if rows else ''}{done.files} files, {size(done.bytes)}", soft_wrap=True)
