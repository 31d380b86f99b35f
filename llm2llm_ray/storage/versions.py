"""Dataset versions D^0, D^1, ...: immutable Parquet parts and a manifest, in one folder per version.

Invariant: a version's id follows from its rows, their order and their lineage, and from nothing else (no time, no file
bytes, no settings). The manifest is written last and never again, so a version is there whole or not at all, and
committing the same rows twice, or from two processes, gives the same version and changes no byte. Which rows deserve to
be in a version is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import DatasetVersion, Example, Lineage

SCHEMA: Any = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("seed_id", pa.string()),
        pa.field("parent_id", pa.string()),
        pa.field("iteration", pa.int32()),
        pa.field("ordinal", pa.int32()),
        pa.field("attempt", pa.int32()),
        pa.field("wrong_answer", pa.string()),
        pa.field("prompt_sha", pa.string()),
        pa.field("teacher", pa.string()),
        pa.field("sampling_seed", pa.int64()),
    ]
)
"""Columns of every part; the lineage (from `seed_id` on) is null in rows that were not generated. Parts of earlier versions of
this package have no weight: it is 1."""

_LINEAGE = tuple(SCHEMA.names[SCHEMA.names.index("seed_id") :])
_FORMAT = 1
_BATCH_ROWS = 4096
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: "part-*.parquet"
---
A dataset version written by llm2llm_ray. Lineage of each row: its columns from `seed_id` on. Record: `manifest.json`.
"""


class VersionStore:
    """The versions of one run."""

    def __init__(self, files: Files, folder: str = "versions") -> None:
        self._files = files
        self._folder = folder

    def commit(
        self,
        new_rows: Iterable[Example],
        *,
        parent: DatasetVersion | None,
        iteration: int,
        about: Mapping[str, Any],
    ) -> DatasetVersion:
        """Write D^iteration = `parent` + `new_rows` and return it; durable on return.

        Rows are streamed, never held. With no new rows the version has its parent's id and parts, at a new iteration.
        `about` (JSON, read after the rows) is kept in the manifest and is no part of the id; if the version stands
        already, so does its first `about`. Raises UserError on text that is not Unicode, and on a first version with no
        rows.
        """
        if parent is not None and iteration <= parent.iteration:
            raise ValueError(f"iteration {iteration} must be later than its parent's, {parent.iteration}")
        parts = [] if parent is None else list(self._manifest(parent)["parts"])
        with self._files.scratch() as draft:
            content, count = _write_part(new_rows, draft)
            if count:
                version_id = fingerprint({"parent": parent.id if parent else None, "rows": content})
            elif parent is not None:
                version_id = parent.id
            else:
                raise UserError("the first dataset version has no rows; the seed set must not be empty")
            target = f"{self._folder}/{_name(iteration, version_id)}"
            for path in parent.parts if parent is not None else ():
                self._files.link(path, f"{target}/{path.rpartition('/')[2]}")
            if count:
                # The iteration comes first in the name: load_dataset reads files in the order of their names.
                file = f"part-{iteration:03d}-{content[:16]}.parquet"
                self._files.place(draft, f"{target}/{file}")
                parts.append({"file": file, "rows": count, "content": content})
        self._files.write_once(f"{target}/README.md", _CARD.encode())
        manifest = {
            "format": _FORMAT,
            "id": version_id,
            "iteration": iteration,
            "parent": parent.id if parent else None,
            "parent_iteration": parent.iteration if parent else None,
            "num_rows": sum(part["rows"] for part in parts),
            "parts": parts,
            "about": dict(about),
        }
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        self._files.write_once(f"{target}/manifest.json", text.encode())
        return self._open(target)

    def find(self, iteration: int) -> DatasetVersion | None:
        """D^iteration; UserError when there are several, as after a change of settings in one run folder."""
        found = [version for version in self.all() if version.iteration == iteration]
        if len(found) > 1:
            raise UserError(
                f"{self._files.absolute(self._folder)}: iteration {iteration} has {len(found)} versions "
                f"({', '.join(version.id[:12] for version in found)}), made with different settings; "
                "use another run.name for each, or name the version by its id"
            )
        return found[0] if found else None

    def load(self, version_id: str, *, iteration: int | None = None) -> DatasetVersion | None:
        """The version of that full id; the earliest one where later iterations added no rows to it."""
        for folder in self._folders():
            number, _, short = folder.rpartition("/")[2].partition("-")
            if version_id.startswith(short) and iteration in (None, int(number)):
                version = self._open(folder)
                if version.id == version_id:
                    return version
        return None

    def all(self) -> list[DatasetVersion]:
        """Every committed version of the run, by iteration."""
        return [self._open(folder) for folder in self._folders()]

    def chain(self, last: DatasetVersion | None = None) -> list[DatasetVersion]:
        """D^0 to `last` along the parents; `last` is by default the version of the highest iteration."""
        if last is None:
            newest = max((version.iteration for version in self.all()), default=None)
            last = self.find(newest) if newest is not None else None
        found: list[DatasetVersion] = []
        while last is not None:
            found.append(last)
            number = self._manifest(last)["parent_iteration"]
            last = None if last.parent is None else self.load(last.parent, iteration=number)
        return found[::-1]

    def rows(self, version: DatasetVersion) -> Iterator[Example]:
        """The version's examples in their order: the seeds first, then what each iteration added."""
        for part in version.parts:
            with self._files.open_input(part) as stream, pq.ParquetFile(stream) as parquet:
                for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                    yield from map(_example, batch.to_pylist())

    def about(self, version: DatasetVersion) -> dict[str, Any]:
        """The manifest: id, iteration, parent, parts with their rows and content hashes, and `about` as committed."""
        return self._manifest(version)

    def folder(self, version: DatasetVersion) -> str:
        """The version's folder as `datasets.load_dataset` takes it."""
        return self._files.absolute(f"{self._folder}/{_name_of(version)}")

    def _folders(self) -> list[str]:
        end = "/manifest.json"
        found = (path.removesuffix(end) for path in self._files.list(self._folder) if path.endswith(end))
        return sorted(found, key=lambda folder: (int(folder.rpartition("/")[2].partition("-")[0]), folder))

    def _open(self, folder: str) -> DatasetVersion:
        record = self._files.read_json(f"{folder}/manifest.json")
        return DatasetVersion(
            id=record["id"],
            iteration=record["iteration"],
            parent=record["parent"],
            parts=tuple(f"{folder}/{part['file']}" for part in record["parts"]),
            num_rows=record["num_rows"],
        )

    def _manifest(self, version: DatasetVersion) -> dict[str, Any]:
        return cast(dict[str, Any], self._files.read_json(f"{self._folder}/{_name_of(version)}/manifest.json"))


def _name(iteration: int, version_id: str) -> str:
    return f"{iteration:03d}-{version_id[:12]}"


def _name_of(version: DatasetVersion) -> str:
    return _name(version.iteration, version.id)


def _write_part(rows: Iterable[Example], place: Path) -> tuple[str, int]:
    """Write the rows as Parquet; sha256 over their canonical JSON lines, and how many they are."""
    digest, count, source = hashlib.sha256(), 0, iter(rows)
    with pq.ParquetWriter(place, SCHEMA, compression="zstd") as writer:
        while batch := [_flat(row) for row in islice(source, _BATCH_ROWS)]:
            for row in batch:
                digest.update(_line(row))
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
            count += len(batch)
    return digest.hexdigest(), count


def _line(row: Mapping[str, Any]) -> bytes:
    """A weight of 1 is none, as in versions that were written before rows had weights: their ids stay."""
    if row["weight"] == 1:
        row = {name: value for name, value in row.items() if name != "weight"}
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise UserError(f"row {row['id']!r}: not Unicode text ({error}); mend or drop it") from None


def _flat(example: Example) -> dict[str, Any]:
    lineage, weight = example.lineage, float(example.weight)
    if not 0 < weight < math.inf:
        raise ValueError(f"row {example.id!r}: weight {weight} is not a number above 0")
    return {
        "id": example.id,
        "input": example.input,
        "output": example.output,
        "origin": example.origin,
        "weight": weight,
        **{name: None if lineage is None else getattr(lineage, name) for name in _LINEAGE},
    }


def _example(row: Mapping[str, Any]) -> Example:
    lineage = None if row["seed_id"] is None else Lineage(**{name: row[name] for name in _LINEAGE})
    return Example(
        id=row["id"], input=row["input"], output=row["output"], origin=row["origin"], lineage=lineage,
        weight=row.get("weight", 1.0),
    )  # fmt: skip
