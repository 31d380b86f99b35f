"""Near-duplicate indexes that outlive their process: one folder per set of rows that grows part by part.

A cache, never a record: what is missing, broken or made by other code is made again from the rows. Invariant: an index
has a name made from its parts' names and all that its keys depend on, and a list of segments that is written last; so it
is there whole or not at all, and D^{i+1}'s is made from D^i's by reading A^i. One process at a time writes a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path

from llm2llm_ray.augmentation.segments import Segment, opened, synced
from llm2llm_ray.augmentation.similarity import NearDuplicates
from llm2llm_ray.types import Example

VERSION = 1
"""Raised by hand when segments, bags or the normal form of texts change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows that never change under this name, for instance a Parquet part of a version, which is named by its content."""

    name: str
    rows: Callable[[], Iterable[Example]]


def answer_tag(answer: str | None) -> int:
    """64 bits that are equal where answers are."""
    return 0 if answer is None else int.from_bytes(blake2b(answer.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def open_index(
    folder: Path,
    parts: Sequence[Part],
    threshold: float,
    answer: Callable[[str], str | None] = lambda output: None,
    about: str = "",
) -> NearDuplicates:
    """The index of these parts' rows, with their answers as tags; reads only parts that no earlier index below `folder` has.

    `about` names what `answer` does: with another one the index is made anew. What is added to the index returned stays
    in memory. Indexes in `folder` that the new one has replaced are removed.
    """
    names = [_name([part.name for part in parts[:count]], threshold, about) for count in range(len(parts) + 1)]
    known: Sequence[Segment] = ()
    for count in range(len(parts), 0, -1):
        found = _read(folder, names[count])
        if found is not None:
            known = found
            break
    else:
        count = 0
    if count < len(parts):
        index = NearDuplicates(threshold, segments=known, folder=folder)
        for part in parts[count:]:
            for row in part.rows():
                index.add(row.id, row.input, answer_tag(answer(row.output)))
        known = index.segments()
        _write(folder, names[-1], known)
    return NearDuplicates(threshold, segments=known)


def _name(parts: Sequence[str], threshold: float, about: str) -> str:
    bands = NearDuplicates(threshold).bands.fingerprint
    told = [VERSION, threshold, about, bands, unicodedata.unidata_version, *parts]
    return sha256(json.dumps(told).encode()).hexdigest()[:24]


def _read(folder: Path, name: str) -> Sequence[Segment] | None:
    """None where it is not there or not whole."""
    try:
        listed: dict[str, dict[str, int]] = json.loads((folder / f"{name}.json").read_bytes())
        for segment, files in listed.items():
            if {path.name: path.stat().st_size for path in (folder / segment).iterdir()} != files:
                return None
        return [opened(folder / segment) for segment in listed]
    except (OSError, ValueError):
        return None


def _write(folder: Path, name: str, segments: Sequence[Segment]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = [segment.folder for segment in segments if segment.folder is not None]
    draft = folder / f"{name}.json.new"
    draft.write_text(json.dumps({place.name: dict(synced(place)) for place in kept}, indent=1))
    os.replace(draft, folder / f"{name}.json")
    for path in folder.iterdir():
        if path.suffix == ".json" and path.stem != name:
            path.unlink()
    for path in folder.iterdir():
        if path.is_dir() and path not in kept:
            shutil.rmtree(path)
