"""Where a run's seed, dev and test rows lie: files named or found in a folder, or splits of a Hugging Face dataset.

A folder or dataset with a dev but no test split lends its dev rows to the test, unless the config names `task.dev`
(snips, sst2 and casehold are published so): then there is no dev split, so that no row serves twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llm2llm_ray.config import TaskConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.rows import SUFFIXES, hub_splits, neighbours, place_of

NAMES: Mapping[str, tuple[str, ...]] = {
    "seed": ("seed", "train"),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(?::[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Source:
    path: str
    """A file, or a hub id."""
    split: str
    """The hub split, or the role (seed, dev, test) of a file."""

    @property
    def place(self) -> str:
        """What a person calls it."""
        return place_of(self.path, self.split)


def find_sources(config: TaskConfig, base_dir: str | Path) -> dict[str, Source]:
    """The sources by role; `seed` is always among them. Raises UserError.

    A relative path is looked up in the current directory, in `base_dir`, and (a file) in the `task.data` folder.
    """
    folder = _existing(config.data, base_dir) if config.data else None
    if folder and not folder.is_dir():
        raise UserError(f"task.data: {config.data} is a file: name its folder, or write task.seed: {config.data}")
    hub = _hub_id(config.data, base_dir) if config.data and not folder else None
    splits = tuple(hub_splits(hub)) if hub else ()
    bases = [base_dir, folder] if folder else [base_dir]
    found: dict[str, Source] = {}
    for role, name in (("seed", config.seed), ("dev", config.dev), ("test", config.test)):
        if name and hub and name in splits:
            found[role] = Source(hub, name)
        elif name:
            found[role] = _file(role, name, bases, splits)
        else:
            found.update(_in_splits(role, hub, splits) if hub else _in_folder(role, folder))
    if "seed" not in found:
        here = sorted(item.name for item in folder.iterdir()) if folder else splits
        raise UserError(
            f"task.data: {config.data}: no seed rows: looked for {' or '.join(NAMES['seed'])}, "
            f"found {', '.join(here) or 'nothing'}; name a file in task.seed"
        )
    if "dev" in found and "test" not in found and not config.dev:
        found["test"] = found.pop("dev")
    _apart(found)
    return found


def _existing(name: str, *bases: str | Path) -> Path | None:
    candidates = [Path(name).expanduser(), *(Path(base) / name for base in bases)]
    return next((path for path in candidates if path.exists()), None)


def _hub_id(name: str, base_dir: str | Path) -> str:
    """`name`, unless it must be a mistyped folder: not owner/name[:config], or no config and a folder `owner` here."""
    parent = _existing(str(Path(name).parent), base_dir)
    if not _HUB_ID.fullmatch(name) or (parent and ":" not in name):
        place = (parent or Path(name).parent) / Path(name).name
        raise UserError(f"task.data: {name}: no such folder{neighbours(place)}")
    return name


def _file(role: str, name: str, bases: list[str | Path], splits: tuple[str, ...]) -> Source:
    path = _existing(name, *bases)
    if path is None:
        known = f"; the dataset's splits: {', '.join(splits)}" if splits else neighbours(Path(bases[-1]) / name)
        raise UserError(f"task.{role}: {name}: no such file{known}")
    if path.suffix not in SUFFIXES or not path.is_file():
        raise UserError(f"task.{role}: {name}: expected a file that ends in {', '.join(SUFFIXES)}")
    return Source(str(path), role)


def _in_splits(role: str, hub: str, splits: tuple[str, ...]) -> dict[str, Source]:
    return next(({role: Source(hub, split)} for split in NAMES[role] if split in splits), {})


def _in_folder(role: str, folder: Path | None) -> dict[str, Source]:
    for name in NAMES[role] if folder else ():
        assert folder
        files = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
        if len(files) > 1:
            both = " and ".join(file.name for file in files)
            raise UserError(f"task.data: {folder} holds {both}: say which one in task.{role}")
        if files:
            return {role: Source(str(files[0]), role)}
    return {}


def _apart(found: Mapping[str, Source]) -> None:
    roles: dict[tuple[str, str], str] = {}
    for role, source in found.items():
        file = Path(source.path)
        place = (str(file.resolve()), "") if file.exists() else (source.path, source.split)
        if place in roles:
            raise UserError(f"task.{roles[place]} and task.{role} are the same rows ({source.place}): name another one")
        roles[place] = role
