"""What travels to the cluster with a job, and the config's paths as the job must be told them.

The code, one config and, where it names them, files of jobs/data and the user's own task module. Data, models, runs and .venv
never do: on this machine the job is told their absolute paths, and for another cluster they must lie where its nodes see them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_UPLOAD = 8 * 2**20
"""Bytes. Ray keeps working dirs in the memory of the head's GCS, and every node fetches them."""


@dataclass(slots=True)
class Placed:
    overrides: list[str] = field(default_factory=list)
    """`section.field=value`, to be given to the job after the user's own."""
    uploads: list[tuple[Path, str]] = field(default_factory=list)
    """(file or folder here, its path in the working dir)"""

    def override(self, name: str, value: Path | str | None) -> None:
        self.overrides.append(f"{name}={json.dumps(value if value is None else str(value))}")


def place(config: Config, file: Path, cwd: Path, *, same_machine: bool) -> Placed:
    """Make every path in `config` (read from `file`, submitted in `cwd`) one that the job finds.

    Raises UserError for a path that the cluster cannot see.
    """
    placed = Placed()
    folder = config.run.folder
    if "://" not in folder and not Path(folder).is_absolute():
        if not same_machine:
            raise UserError(
                f"run.folder: {folder} would lie in the job's scratch folder and be lost with it; give an absolute path that all "
                "nodes share, or a URI: --set run.folder=/shared/runs"
            )
        placed.override("run.folder", cwd / folder)
    if config.cluster.address is not None:
        placed.override("cluster.address", None)  # the job joins the cluster it runs on
    for name, value in _paths(config):
        found = _found(name, value, cwd, file.parent)
        if found is None or (Path(value).is_absolute() and not same_machine):
            continue  # a hub id, a split's name, or a path of the cluster's: the job will tell
        shipped = REPOSITORY / "jobs" / "data"
        if found.is_relative_to(shipped):
            there = f"jobs/data/{found.relative_to(shipped)}"
            placed.uploads.append((found, there))
            placed.override(name, there)
        elif same_machine:
            placed.override(name, found)
        else:
            raise UserError(
                f"{name}: {value} is on this machine, which the cluster does not see, and data and models are never uploaded; "
                f"copy it to a folder that all nodes share and give that: --set {name}=/shared/{found.name}"
            )
    module = _module_of(config.task.name, cwd)
    if module:
        placed.uploads.append((module, module.name))
    return placed


def _paths(config: Config) -> Iterable[tuple[str, str]]:
    """(field, value) of everything in a config that may name a file or folder, less run.folder."""
    task, teacher = config.task, config.teacher
    values = {"task.data": task.data, "task.seed": task.seed, "task.dev": task.dev, "task.test": task.test}
    values |= {"student.model": config.student.model, "evaluation.recorded_answers": config.evaluation.recorded_answers}
    values |= {"teacher.model": None if teacher.kind == "openai" else teacher.model, "teacher.replies": teacher.replies}
    return [(name, value) for name, value in values.items() if value]


def _found(name: str, value: str, cwd: Path, base: Path) -> Path | None:
    """As the run itself looks: in the current folder, then (task files) beside the config."""
    bases = [cwd, base] if name.startswith("task.") else [cwd]
    return next((path.resolve() for path in (folder / value for folder in bases) if path.exists()), None)


def _module_of(task: str, cwd: Path) -> Path | None:
    """The file or package in `cwd` that holds a task of the user's; None for built-in tasks and installed packages."""
    top = task.partition(":")[0].partition(".")[0]
    if ":" not in task or top == "llm2llm_ray":
        return None
    return next((path for path in (cwd / top, cwd / f"{top}.py") if path.exists()), None)


def fill(folder: Path, config: Path, placed: Placed) -> int:
    """Put what the job needs into the empty `folder`; its size in bytes. Raises UserError above MAX_UPLOAD."""
    for source, there in [(REPOSITORY / "llm2llm_ray", "llm2llm_ray"), (config, f"jobs/{config.name}"), *placed.uploads]:
        goal = folder / there
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, goal, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, goal)
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > MAX_UPLOAD:
        biggest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
        named = ", ".join(f"{path} ({size / 1e6:.1f} MB)" for path, size in biggest)
        raise UserError(
            f"the job's working dir would be {total / 1e6:.1f} MB, and {MAX_UPLOAD / 1e6:.1f} are allowed; the biggest: {named}; "
            "put data and models where all nodes see them"
        )
    return total
