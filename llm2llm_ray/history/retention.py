"""What a run keeps on disk, by kind with sizes, and what of it can go. Looks only, until `remove` is called.

Invariant: nothing goes that a restart of this run reads: never versions, replies, records or recorded rounds; of an unfinished
run nothing but what a finished stage left over; of a running run nothing at all. What goes is renamed away first, so that a
student or a checkpoint is never there by half.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord, State
from llm2llm_ray.storage.files import SCRATCH
from llm2llm_ray.storage.lease import run_lease
from llm2llm_ray.storage.stages import StageRecords

_OURS = re.compile(r"(?:\d{3}(-fold-\d+)?|baseline)-[0-9a-f]{12}(-early)?")
"""Names of trainings, as students/ has them, and of the snapshots that they left."""
_KEPT = {
    "versions": ("dataset versions", "never goes"),
    "replies": ("replies", "never goes: paid for once"),
    "refused": ("refused rows", "says why rows were turned away"),
    "folds": ("seed rows by fold", "small"),
    "inputs": ("dev and test rows", "the contamination check reads them"),
    "stages": ("stage records", "a finished stage is known by them"),
    "evidence": ("evidence", "says what really ran"),
    "train": ("training logs", "small"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file or folder of a run. Example: Item(path="students/001-7d2680a4a75f", kind="students", bytes=538090408, …)"""

    path: str
    """Relative to the run folder."""
    kind: str
    bytes: int
    """On disk; what is hard-linked into several versions counts once."""
    can_go: bool
    why: str
    """Why it can go, or why it stays."""
    record: str = ""
    """The stage record that goes with it, so that the stage would run again; "" when none does."""


def inventory(record: RunRecord) -> list[Item]:
    """Everything in the run folder. Raises UserError for a run on an object store, where no lock tells whether it runs."""
    root = record.files.local_root
    if root is None:
        raise UserError(f"{record.files.root}: gc works on run folders that are paths; use your store's own tools there")
    return list(_Rules(record, root, record.state).items())


def remove(record: RunRecord, items: Sequence[Item]) -> int:
    """Delete what can go of `items`; the bytes freed. Raises UserError when somebody drives the run, or did meanwhile."""
    root = record.files.local_root
    assert root is not None, "inventory refuses other folders"
    with run_lease(record.files.root):
        now = RunRecord(record.files)
        if (now.events, now.stages) != (record.events, record.stages):
            raise UserError(f"{record.name}: the run went on since its folder was looked at; ask again")
        going = [item for item in items if item.can_go]
        for item in going:
            if item.record:
                (root / item.record).unlink(missing_ok=True)
            _remove(root, root / item.path)
    return sum(item.bytes for item in going)


def size_on_disk(folder: Path) -> int:
    """Bytes of all files below, each once however many names it has. What vanishes while we look counts as nothing."""
    return _size(folder, set())


class _Rules:
    """What is decided about each entry of one run folder."""

    def __init__(self, record: RunRecord, root: Path, state: State) -> None:
        self._root = root
        self._seen: set[tuple[int, int]] = set()
        self._running, self._finished = state == "running", state == "finished"
        trainings = [stage["result"] for stage in record.stages if stage["name"] == "train"]
        self._rounds = {str(s["result"]["folder"]): s for s in record.stages if s["name"] in ("round", "exam")}
        self._kept = _kept_students(record, {str(result["sha"]): str(result["path"]) for result in trainings})
        accuracy = record.exams["accuracy"] if record.exams else {}
        self._reported = {str(found["rows"]) for found in accuracy.values()}

    def items(self) -> Iterator[Item]:
        for top in sorted(self._root.iterdir()):
            if top.name in ("students", "train", "rounds") and top.is_dir():
                for entry in sorted(top.iterdir()):
                    yield self._judged(entry)
            else:
                yield self._judged(top)

    def _judged(self, entry: Path) -> Item:
        path = entry.relative_to(self._root).as_posix()
        kind, can_go, why, stage = self._verdict(path, entry.is_dir())
        if can_go and self._running:
            can_go, why, stage = False, "the run is running", ""
        return Item(path=path, kind=kind, bytes=_size(entry, self._seen), can_go=can_go, why=why, record=stage)

    def _verdict(self, path: str, is_folder: bool) -> tuple[str, bool, str, str]:
        top, _, name = path.partition("/")
        if top == "students":
            return ("students", *self._student(path, name), "")
        if top == "train" and is_folder:
            return ("checkpoints", *self._checkpoints(), "")
        if top == "rounds":
            return self._round(path)
        if top == "index":
            return "near-duplicate indexes", True, "a cache, made again from the versions", ""
        if top == SCRATCH:
            left = any((self._root / path).iterdir())
            return "unfinished files", left, "nobody writes them any more" if left else "empty", ""
        kind, why = _KEPT.get(top, ("journal, config, report, other", "small, or not ours to judge"))
        return kind, False, why, ""

    def _student(self, path: str, name: str) -> tuple[bool, str]:
        if name.startswith(".writing-"):
            return True, "left by an export that was cut short"
        ours = _OURS.fullmatch(name)
        if not ours:
            return False, "not written by a run"
        if not self._finished:
            return False, "an unfinished run may read it"
        if ours[1]:
            return True, "trained without one fold, for its errors; its answers stay"
        if ours[2]:
            return True, "a snapshot that errors came from; its answers stay"
        if path in self._kept:
            return False, self._kept[path]
        return True, "neither the last nor the best student; its rows, answers and accuracy stay"

    def _checkpoints(self) -> tuple[bool, str]:
        if self._finished:
            return True, "the run is finished"
        return False, "an unfinished training goes on from here"

    def _round(self, path: str) -> tuple[str, bool, str, str]:
        stage = self._rounds.get(path)
        if stage is None:
            return "rounds", True, "of a stream that was cut short, or graded before it went on; its replies are kept", ""
        if stage["name"] == "exam" and self._finished and self._reported and path not in self._reported:
            return "exams", True, "not in the report (by `evaluate`, or by older settings)", StageRecords.path_of(stage)
        return ("exams" if stage["name"] == "exam" else "rounds"), False, "reports and restarts read it", ""


def _kept_students(record: RunRecord, by_sha: dict[str, str]) -> dict[str, str]:
    """Path -> why, of the students of the loop that stay once the run is finished."""
    found: dict[str, str] = {}
    if not record.iterations:
        return found
    students = {who: record.iterations[at]["student"]["sha"] for who, at in (("first", 0), ("kept", record.kept))}
    accuracy = record.exams["accuracy"] if record.exams else {}
    best = max((who for who in students if who in accuracy), key=lambda who: accuracy[who]["value"], default=None)
    if best is not None and students[best] in by_sha:
        found[by_sha[students[best]]] = "the best student on the test set"
    if students["kept"] in by_sha:
        found[by_sha[students["kept"]]] = "the student that the run kept"
    return found


def _remove(root: Path, path: Path) -> None:
    away = root / SCRATCH / f"removed-{uuid.uuid4().hex}"
    if path == root / SCRATCH:
        shutil.rmtree(path, ignore_errors=True)
        return
    away.parent.mkdir(exist_ok=True)
    path.rename(away)
    if away.is_dir() and not away.is_symlink():
        shutil.rmtree(away)
    else:
        away.unlink()


def _size(path: Path, seen: set[tuple[int, int]]) -> int:
    total = 0
    for file in _below(path) if path.is_dir() and not path.is_symlink() else [path]:
        try:
            found = os.lstat(file)
        except FileNotFoundError:
            continue
        key = (found.st_dev, found.st_ino)
        if key not in seen and not stat.S_ISDIR(found.st_mode):
            seen.add(key)
            total += found.st_blocks * 512
    return total


def _below(folder: Path) -> Iterator[str]:
    """Everything in a folder, at any depth. os.walk, unlike Path.rglob, passes over what vanishes on the way."""
    for place, folders, files in os.walk(folder):
        yield from (os.path.join(place, name) for name in (*folders, *files))
