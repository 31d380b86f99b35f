"""Which run a command means: a run folder, or the name of a run below ./runs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord

RUNS = "runs"

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of a run below ./runs.", show_default=False)]


def find_run(name: str) -> RunRecord:
    """Raises UserError with the nearest names when there is no such run."""
    if "://" in name:
        return RunRecord.open(name)
    for folder in (Path(name), Path(RUNS) / name):
        if is_run(folder):
            return RunRecord.open(str(folder))
    looked = Path(name).parent if "/" in name.rstrip("/") else Path(RUNS)
    there = [folder.name for folder in run_folders(looked)]
    close = difflib.get_close_matches(Path(name).name, there, n=3, cutoff=0.4)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif there:
        hint = f"runs there: {', '.join(there[:10])}"
    else:
        hint = "there is no run there; name a run folder, or run this where ./runs is"
    raise UserError(f"{name}: no run folder, and no run of that name in {looked}/; {hint}")


def is_run(folder: Path) -> bool:
    return (folder / "configs").is_dir()


def run_folders(folder: Path) -> list[Path]:
    """The runs right below `folder`, by name; none when it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if is_run(path))
    except OSError:
        return []
