"""Cross-fitted errors (`evaluation.error_source: cross_fit`): the seeds in folds, each judged by a student that never saw it.

A fold's student is trained on D^i without the fold's seeds and without every row grown from them, and a teacher's prompt shows
rows of the target's own fold only, so no row of another fold was prompted with them. (The examples of `gates.relabel` are of all
folds: a vote keeps or drops a row and writes none.)

Folds follow from the seeds' ids, texts and classes alone: no seed of a run is in them, so a file of recorded replies stays true.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm_ray.augmentation.similarity import NearDuplicates
from llm2llm_ray.config import Config
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import DatasetVersion, Example

NEAR = 0.9
"""Similarity from which two seeds go into one fold: a student that knows the one would answer the other by heart."""
FOLD = "fold"
"""The column of a row's fold, from 0."""
_ROWS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("seed_id", pa.string()),
        pa.field(FOLD, pa.int64(), nullable=False),
    ]
)
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """The seeds that one student is not trained on. Example: Fold(number=1, seeds=frozenset({"s-3", "s-17"}))"""

    number: int
    seeds: frozenset[str]

    @property
    def id(self) -> str:
        """Follows from the seeds' ids."""
        return fingerprint({"seeds": sorted(self.seeds)})


def folds_for(config: Config, task: Task, seeds: Sequence[Example]) -> dict[str, int]:
    """Seed id -> fold, or nothing where errors are not cross-fitted. Raises UserError where a fold would have no seed."""
    evaluation = config.evaluation
    if evaluation.error_source != "cross_fit":
        return {}
    found = dealt(seeds, task.group, evaluation.folds)
    made = len(set(found.values()))
    if made < evaluation.folds:
        remedy = f"set evaluation.folds={made}" if made > 1 else "give more seeds, or use evaluation.error_source=early"
        raise UserError(
            f"evaluation.folds={evaluation.folds}: the {len(seeds)} seeds make {made} folds (near copies of one another count as "
            f"one); {remedy}"
        )
    return found


def dealt(seeds: Iterable[Example], group: Callable[[Example], str], count: int) -> dict[str, int]:
    """Seed id -> fold, from 0. Each class is spread evenly, and so are all seeds; near copies stay together. The order of the
    seeds does not matter."""
    clusters: dict[str, list[Example]] = {}
    first_of: dict[str, str] = {}
    index = NearDuplicates(NEAR)
    for seed in sorted(seeds, key=lambda row: _lot(row.id)):
        near = index.find(seed.input)
        first_of[seed.id] = first_of[near[0]] if near else seed.id
        clusters.setdefault(first_of[seed.id], []).append(seed)
        index.add(seed.id, seed.input)
    by_group: defaultdict[str, list[list[Example]]] = defaultdict(list)
    for cluster in clusters.values():
        by_group[group(cluster[0])].append(cluster)
    found: dict[str, int] = {}
    rows: Counter[int] = Counter()
    for name in sorted(by_group):
        of_group: Counter[int] = Counter()
        for cluster in sorted(by_group[name], key=len, reverse=True):  # stable: equals stay in the order of their lots
            fold = min(range(count), key=lambda fold: (of_group[fold], rows[fold], fold))
            of_group[fold] += len(cluster)
            rows[fold] += len(cluster)
            found |= {seed.id: fold for seed in cluster}
    return found


def folds(assigned: Mapping[str, int]) -> list[Fold]:
    """By their numbers."""
    members: defaultdict[int, set[str]] = defaultdict(set)
    for seed, number in assigned.items():
        members[number].add(seed)
    return [Fold(number=number, seeds=frozenset(members[number])) for number in sorted(members)]


def rows_by_fold(files: Files, version: DatasetVersion, assigned: Mapping[str, int]) -> DatasetVersion:
    """The version's rows, fold after fold, each with its fold, as a file below folds/; a row grown from a seed is in the seed's.

    The id is the version's: they are its rows.
    """
    path = f"folds/{version.id[:12]}-{fingerprint(dict(assigned))[:12]}.parquet"
    if not files.exists(path):
        with files.scratch() as draft:
            with pq.ParquetWriter(draft, _ROWS, compression="zstd") as writer:
                for number in range(max(assigned.values()) + 1):
                    _write(writer, (row for row in VersionStore(files).rows(version) if assigned[root_of(row)] == number), number)
            files.place(draft, path)
    return DatasetVersion(
        id=version.id, iteration=version.iteration, parent=version.parent, parts=(path,), num_rows=version.num_rows
    )


def root_of(row: Example) -> str:
    """Id of the seed that a row is or was grown from."""
    return row.lineage.seed_id if row.lineage else row.id


def _write(writer: pq.ParquetWriter, rows: Iterable[Example], number: int) -> None:
    batch: list[dict[str, object]] = []
    for row in rows:
        seed_id = row.lineage.seed_id if row.lineage else None
        batch.append(
            {"id": row.id, "input": row.input, "output": row.output, "origin": row.origin, "seed_id": seed_id, FOLD: number}
        )
        if len(batch) == _BATCH_ROWS:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=_ROWS))
            batch = []
    if batch:
        writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=_ROWS))


def _lot(id: str) -> bytes:
    return sha256(id.encode()).digest()
