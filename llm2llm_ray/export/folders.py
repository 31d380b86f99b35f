"""Writes the exports: copies what a run holds into a new folder, its card last, and puts the folder in place by a rename."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llm2llm_ray.errors import UserError
from llm2llm_ray.export.card import dataset_card, student_card
from llm2llm_ray.export.facts import Facts
from llm2llm_ray.storage.files import Files

_OURS = "_"
"""What a student's file begins with that is for the run, not for others: it names hosts, processes, rows of the training."""
_SAMPLES = 5
_COPY_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    path: str
    files: int
    bytes: int
    rows: Mapping[str, int]
    """Split -> rows; empty for a student."""


def export_dataset(facts: Facts, out: Path, *, held_out: bool = True) -> Exported:
    """D^i at `out`, as `datasets.load_dataset(out)` opens it: `train`, and with `held_out` the run's `validation` and `test`.

    The held-out rows come along by default, because numbers on a dataset mean nothing without the rows they were taken on.
    Raises UserError when `out` is there and not empty.
    """
    record = facts.record
    versions = {"train": facts.version} | (dict(facts.held_out) if held_out else {})
    rows = {split: version.num_rows for split, version in versions.items()}
    with _new_folder(out) as folder:
        for split, version in versions.items():
            for number, part in enumerate(version.parts):
                _copy(record.files, part, folder / "data" / f"{split}-{number:05d}.parquet")
        written = (row for row in record.version_rows(facts.version) if row.origin == "augmented")
        (folder / "README.md").write_text(dataset_card(facts, rows, list(islice(written, _SAMPLES))), encoding="utf-8")
    return _told(out, rows)


def export_student(facts: Facts, out: Path) -> Exported:
    """M^i at `out`, as `transformers` loads it. A copy, not links: saving over it must not reach the run's own weights.

    Raises UserError when `out` is there and not empty, or when the run does not hold the student (any more).
    """
    record = facts.record
    if facts.student is None:
        raise UserError(f"{record.name}: iteration {facts.index} has no student yet; export the dataset alone (--only dataset)")
    source = str(facts.student["result"]["path"])
    files = [path for path in record.files.list(source) if not path.rpartition("/")[2].startswith(_OURS)]
    if not files:
        raise UserError(
            f"{record.name}: {source} is not kept any more (`llm2llm gc`); choose another --iteration, or --only dataset"
        )
    with _new_folder(out) as folder:
        for path in files:
            _copy(record.files, path, folder / path.removeprefix(f"{source}/"))
        (folder / "README.md").write_text(student_card(facts), encoding="utf-8")
    return _told(out, {})


def check_free(out: Path) -> None:
    """Raises UserError when something stands at `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already and not empty; name another folder with --out, or remove it")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    check_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".exporting-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}; name another folder with --out") from None
    try:
        yield scratch
        for path in [scratch, *scratch.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)  # mkdtemp makes a folder its owner's alone
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(files: Files, source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.open_input(source) as stream, target.open("wb") as place:
        shutil.copyfileobj(stream, place, _COPY_BYTES)


def _told(out: Path, rows: Mapping[str, int]) -> Exported:
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    return Exported(path=str(out), files=len(sizes), bytes=sum(sizes), rows=rows)
