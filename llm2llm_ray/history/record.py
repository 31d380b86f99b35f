"""A run as it lies in storage, for whoever reads it: state, stages, rounds, and what became of each mistake. No Ray.

Reads only what the run wrote (events, stage records, rounds, versions), so it works on a live run, a dead one and a copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow.parquet as pq

from llm2llm_ray.accuracy import grade
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.rows import candidates_of, round_rows
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.lease import Holder, holder
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.types import DatasetVersion, Example

State = Literal["running", "finished", "stopped", "broken off", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one text that the teacher wrote. Example: Outcome(status="rejected", reason="near_duplicate", …)"""

    status: Literal["accepted", "rejected"]
    reason: str
    detail: str
    text: str
    """The draft, or the reply that no draft could be found in. Untrusted: escape it."""
    output: str
    """The gold answer of the draft; "" when there is no draft."""
    ordinal: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One row that the student got wrong in one iteration, with what the teacher made of it."""

    iteration: int
    row_id: str
    seed_id: str
    input: str
    gold: str
    completion: str
    """What the student said, as it said it. Untrusted."""
    answer: str | None
    outcomes: tuple[Outcome, ...]
    """Empty when the teacher was not asked (last iteration, budget)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """The stage records of one iteration's round and of its commit; None where no commit was made of it (yet)."""

    round: dict[str, Any]
    commit: dict[str, Any] | None

    @property
    def iteration(self) -> int:
        return int(self.round["iteration"])

    @property
    def folder(self) -> str:
        """Of its rows."""
        return str(self.round["result"]["folder"])


class RunRecord:
    """One run folder. Example: RunRecord.open("runs/demo").state"""

    def __init__(self, files: Files) -> None:
        self.files = files

    @classmethod
    def open(cls, folder: str) -> RunRecord:
        """Raises UserError when the folder holds no run."""
        files = Files(folder)
        if not any(files.list("configs")):
            raise UserError(f"{folder}: no run is kept here (it has no configs/); name a run folder, for instance runs/demo")
        return cls(files)

    @property
    def name(self) -> str:
        return str(self.config["run"]["name"])

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config of the last start."""
        named = [event["config"] for event in self.events if event["event"] == "started" and "config" in event]
        config: dict[str, Any] = self.files.read_json(named[-1] if named else list(self.files.list("configs"))[-1])
        return config

    @property
    def recorded_replies(self) -> dict[str, Any] | None:
        """What the file of recorded replies of the last start says of itself (`asking.recorded.About`); None without one."""
        for event in reversed(self.events):
            if event["event"] == "started":
                return None
            if event["event"] == "recorded_replies":
                return dict(event)
        return None

    @property
    def teacher(self) -> str:
        """Whose replies they are, as a person is told: a file says nothing of who wrote it."""
        told, teacher = self.recorded_replies, self.config["teacher"]
        if teacher["kind"] == "recorded" and told is not None:
            return f"recorded replies of {told['model'] or 'an unnamed model'}, {told['file']}"
        return str(teacher["model"])

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """{"time": Unix seconds, "event": name, ...}: started, driver_started, engines_up, stage_started, stage_finished,
        iteration, rows_not_known, stopping, finished. A restarted run has several of each but stage_finished."""
        return list(Events(self.files).read())

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """Finished stages in the order they ended: name (train, fold, round, commit, exam), iteration (None: the baseline's
        training), key, inputs, result, started and ended (Unix seconds). See storage.stages."""
        return StageRecords(self.files).all()

    @cached_property
    def report(self) -> dict[str, Any] | None:
        """What the finished run reported; None before its end, also when a finished run was started again."""
        last = next((e["event"] for e in reversed(self.events) if e["event"] in ("started", "finished")), None)
        if last != "finished" or not self.files.exists("report.json"):
            return None
        found: dict[str, Any] = self.files.read_json("report.json")
        return found

    @property
    def holder(self) -> Holder | None:
        """The process that drives the run now. None also where that cannot be known, see `state`."""
        return holder(self.files.root) if self.files.local_root is not None else None

    @property
    def state(self) -> State:
        """`stopped`: told to, by a signal. `broken off`: neither finished nor stopped, and nobody drives it. `unknown`: not
        finished, and in a folder where no lock tells whether somebody drives it (an object store)."""
        if self.holder is not None:
            return "running"
        last = next((e["event"] for e in reversed(self.events) if e["event"] in ("finished", "stopping", "started")), "started")
        if last == "finished":
            return "finished"
        if self.files.local_root is None:
            return "unknown"
        return "stopped" if last == "stopping" else "broken off"

    @cached_property
    def _current(self) -> list[dict[str, Any]]:
        """The events since the run was first started with the settings of its last start, and with no others since."""
        starts = [(index, event.get("config")) for index, event in enumerate(self.events) if event["event"] == "started"]
        first = 0
        for index, config in reversed(starts):
            if config != starts[-1][1]:
                break
            first = index
        return self.events[first:]

    @cached_property
    def iterations(self) -> list[dict[str, Any]]:
        """One item per iteration finished with the settings of the last start: index, dataset, student (with metrics), round
        (counts), grown, seconds."""
        if self.report is not None:
            return list(self.report["iterations"])
        told = {event["index"]: event for event in self._current if event["event"] == "iteration"}
        return [told[index] for index in sorted(told)]

    def rounds(self) -> list[RoundRecord]:
        """The round in force of each iteration, in order: with changed settings a folder holds others, too. That is what a
        finished iteration named, else the newest since the run has the settings of its last start."""
        told = {item["index"]: item for item in self.iterations}
        found = []
        for iteration in sorted({stage["iteration"] for stage in self.stages if stage["name"] == "round"}):
            record = self._round(iteration, told.get(iteration))
            if record is not None:
                found.append(record)
        return found

    def _round(self, iteration: int, told: Mapping[str, Any] | None) -> RoundRecord | None:
        """`told`: what was said of the iteration when it was finished."""
        since = 0.0 if told or not self._current else self._current[0]["time"]
        own = [stage for stage in self.stages if stage["iteration"] == iteration and stage["ended"] >= since]
        rounds = [stage for stage in own if stage["name"] == "round"]
        commits = [stage for stage in own if stage["name"] == "commit"]
        if told:
            grown, student = told["grown"] and told["grown"]["id"], told["student"]["sha"]
            commits = [stage for stage in commits if stage["result"]["version"] == grown]
            of_commit = [stage for stage in rounds if any(commit["inputs"]["round"] == stage["key"] for commit in commits)]
            rounds = of_commit or [stage for stage in rounds if stage["inputs"].get("model") == student] or rounds
        if not rounds:
            return None
        key = rounds[-1]["key"]
        return RoundRecord(round=rounds[-1], commit=next((c for c in reversed(commits) if c["inputs"]["round"] == key), None))

    @property
    def exams(self) -> dict[str, Any] | None:
        """{"accuracy": {who: {value, low, high, hits, total, ...}}, "differences": {...}}; None before the end of the run."""
        return self.report["exams"] if self.report else None

    @property
    def kept(self) -> int:
        """Iteration of the student that the run ended with (`run.keep`): the last finished one while nothing is chosen."""
        last = int(self.iterations[-1]["index"]) if self.iterations else 0
        return int((self.report or {}).get("kept", last))

    def versions(self) -> list[DatasetVersion]:
        return VersionStore(self.files).all()

    def version_rows(self, version: DatasetVersion) -> Iterator[Example]:
        return VersionStore(self.files).rows(version)

    def round_rows(self, folder: str) -> Iterator[dict[str, Any]]:
        """The rows in the folder of a `round` or `exam` stage: the student's answer, its times, what was asked for it."""
        return round_rows(self.files, folder)

    def mistakes(self) -> Iterator[Mistake]:
        """Every wrong row of every round in force, and every right one that the teacher was asked about (augmentation.targets),
        in the order of iterations and then of row ids."""
        for record in self.rounds():
            refused = self._refused(record)
            for row in sorted(self.round_rows(record.folder), key=lambda row: row["id"]):
                if grade(row) == "wrong" or row.get("target"):
                    yield _mistake(row, record.iteration, refused, record.commit is not None)

    def _refused(self, record: RoundRecord) -> dict[tuple[Any, ...], dict[str, Any]]:
        """What the commit turned away. Before commits named their file there was one for each round."""
        if record.commit is None:
            return {}
        path = record.commit["result"].get("refused", f"refused/{record.folder.removeprefix('rounds/')}.parquet")
        if path is None or not self.files.exists(path):
            return {}
        with self.files.open_input(path) as stream:
            rows = pq.read_table(stream).to_pylist()
        return {(row["parent_id"], row["ordinal"], row["attempt"], row["index"]): row for row in rows}


def _mistake(row: Mapping[str, Any], iteration: int, refused: Mapping[tuple[Any, ...], Any], committed: bool) -> Mistake:
    outcomes = [
        Outcome(status="rejected", reason=item["reason"], detail=item["detail"], text=item["text"], output="",
                ordinal=item["ordinal"], attempt=item["attempt"])
        for item in json.loads(row.get("rejected") or "[]")
    ]  # fmt: skip
    for candidate in candidates_of(row) if row.get("candidates") and committed else ():
        line = candidate.lineage
        no = refused.get((line.parent_id, line.ordinal, line.attempt, candidate.index))
        outcomes.append(
            Outcome(
                status="rejected" if no else "accepted",
                reason=no["reason"] if no else "",
                detail=no["detail"] if no else "",
                text=candidate.input,
                output=candidate.output,
                ordinal=line.ordinal,
                attempt=line.attempt,
            )
        )
    return Mistake(
        iteration=iteration,
        row_id=row["id"],
        seed_id=row["seed_id"] or row["id"],
        input=row["input"],
        gold=row["output"],
        completion=row["completion"],
        answer=row["answer"],
        outcomes=tuple(sorted(outcomes, key=lambda o: (o.ordinal, o.attempt, o.status))),
    )
