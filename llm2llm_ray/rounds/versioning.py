"""The `Versions` port over storage: drains a stream once, runs the commit gates, writes D^{i+1}, and records both stages.

Invariant: a stage whose record stands is not run again, so one that left too many rows without an answer gets none
(`unanswered.py`); a stage without one leaves nothing that a later run could take for a result (its folder has a new name each
time). Streams come from any runtime.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm_ray.augmentation.caps import Caps
from llm2llm_ray.augmentation.commit import Admitted, CommitGates, Refused
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.augmentation.row_index import Part, open_index
from llm2llm_ray.config import AugmentationConfig, CapsConfig, MaxUnanswered
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.protocols import AugmentedStream, GradedStream, Stream
from llm2llm_ray.rounds.enough_answered import check_answered
from llm2llm_ray.rounds.round_inputs import committed
from llm2llm_ray.rounds.rows import candidates_of, round_rows, tally
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords, stage_key
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.task import Task, identity
from llm2llm_ray.types import DatasetVersion, Example, Round

ROUND_VERSION = 4  # raised by hand when the code of the stage gives other results for the same inputs
COMMIT_VERSION = 2


class RecordedVersions:
    def __init__(
        self,
        files: Files,
        task: Task,
        seed_rows: Callable[[], Iterable[Example]],
        held_out: Callable[[], Iterable[Example]],
        held_out_ids: Sequence[str],
        settings: AugmentationConfig,
        on_stage: Callable[[str, int], None] = lambda stage, iteration: None,
        max_unanswered: MaxUnanswered = MaxUnanswered(),  # noqa: B008  # frozen
        caps: CapsConfig = CapsConfig(),  # noqa: B008
        stages: StageRecords | None = None,
    ) -> None:
        self._files, self._task, self._settings = files, task, settings
        self._seed_rows, self._held_out, self._on_stage = seed_rows, held_out, on_stage
        self._max_unanswered, self._caps = max_unanswered, caps
        self._held_out_ids = held_out_ids  # of the dev and test versions: other rows to keep out make another commit
        self._store = VersionStore(files)
        self._stages = stages or StageRecords(files)
        self._events = Events(files)

    def seed(self) -> DatasetVersion:
        return self._store.commit(self._seed_rows(), parent=None, iteration=0, about={"what": "seed"})

    def extend(self, dataset: DatasetVersion, augmented: AugmentedStream) -> tuple[DatasetVersion, Round]:
        record = self._drained(augmented)
        key, inputs = self._commit_inputs(dataset, record)
        commit = self._stages.find("commit", key)
        if commit is None:
            commit = self._commit(dataset, record, key, inputs)
        grown = self._store.load(commit["result"]["version"], iteration=dataset.iteration + 1)
        assert grown is not None, f"stage record {key} names a version that is gone: {commit['result']['version']}"
        return grown, _round(record["result"], commit["result"])

    def close(self, dataset: DatasetVersion, graded: GradedStream) -> Round:
        return _round(self._drained(graded)["result"], {"accepted": 0, "rejected": {}})

    def drained(self, stream: Stream, name: str = "round", shown: str | None = None) -> dict[str, Any]:
        """The record of a drained stream; drains it if there is none. `result.folder` holds its rows.

        `shown` is what `on_stage` is told instead of `name`.
        """
        return self._drained(stream, name, shown)

    def _drained(self, stream: Stream, name: str = "round", shown: str | None = None) -> dict[str, Any]:
        key = stage_key(name, ROUND_VERSION, stream.inputs)
        record = self._stages.find(name, key)
        if record is None:
            self._on_stage(shown or name, stream.iteration)
            self._events.add("stage_started", stage=name, iteration=stream.iteration, key=key)
            started = time.time()
            folder = f"rounds/{name}-{stream.iteration:03d}-{key[:12]}-{uuid.uuid4().hex[:6]}"
            stream.drain(folder)
            result = {"folder": folder} | tally(self._files, folder)
            check_answered(self._files, result, self._max_unanswered, _told(shown or name, stream.iteration))
            record = self._stages.record(
                name, key, inputs=stream.inputs, result=result, started=started, ended=time.time(),
                iteration=stream.iteration,
            )  # fmt: skip
            self._events.add("stage_finished", stage=name, iteration=stream.iteration, key=key)
        return record

    def _commit_inputs(self, dataset: DatasetVersion, record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        settings = self._settings.of_round(dataset.iteration)
        inputs = committed(settings, self._caps, round_key=record["key"], dataset=dataset.id, held_out=self._held_out_ids)
        return stage_key("commit", COMMIT_VERSION, inputs), inputs

    def _commit(self, dataset: DatasetVersion, record: Mapping[str, Any], key: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        iteration, folder = dataset.iteration, record["result"]["folder"]
        self._on_stage("commit", iteration)
        self._events.add("stage_started", stage="commit", iteration=iteration, key=key)
        started = time.time()
        gates = CommitGates(
            open_index(self._index(), self._parts(dataset), self._settings.near_duplicate, self._answer, self._about()),
            HeldOut(self._held_out(), self._settings.near_test, self._seed_rows()),
            self._settings.of_round(iteration),
            self._answer,
            Caps(self._caps, self._task.group, self._store.rows(dataset)),
        )
        refused: list[Refused] = []
        counts: Counter[str] = Counter()
        candidates = (c for row in round_rows(self._files, folder, ("candidates",)) for c in candidates_of(row))

        def admitted() -> Iterator[Example]:
            for verdict in gates.admit(candidates):
                if isinstance(verdict, Admitted):
                    counts["accepted"] += 1
                    yield verdict.example
                else:
                    refused.append(verdict)

        grown = self._store.commit(
            admitted(), parent=dataset, iteration=iteration + 1, about={"round": folder, "inputs": dict(inputs)}
        )
        rejected = Counter(item.rejected.reason for item in refused)
        result = {
            "version": grown.id,
            "accepted": counts["accepted"],
            "rejected": dict(sorted(rejected.items())),
            "refused": self._write_refused(f"refused/{iteration:03d}-{key[:12]}.parquet", refused),
        }
        record = self._stages.record(
            "commit", key, inputs=inputs, result=result, started=started, ended=time.time(), iteration=iteration
        )
        self._events.add("stage_finished", stage="commit", iteration=iteration, key=key, version=grown.id)
        return record

    def _answer(self, output: str) -> str | None:
        return self._task.answer(self._task.completion(output))

    def _about(self) -> str:
        return fingerprint({"task": dict(identity(self._task)), "version": COMMIT_VERSION})

    def _parts(self, dataset: DatasetVersion) -> list[Part]:
        def part(path: str) -> Part:
            return Part(name=path.rpartition("/")[2], rows=lambda: self._store.rows(replace(dataset, parts=(path,))))

        return [part(path) for path in dataset.parts]

    def _index(self) -> Path:
        """Below the run; for a run on an object store, below this node's cache."""
        run = hashlib.sha256(self._files.root.encode()).hexdigest()[:16]
        return (self._files.local_root or Path.home() / ".cache" / "llm2llm_ray" / run) / "index" / "rows"

    def _write_refused(self, path: str, refused: list[Refused]) -> str | None:
        """What the commit gates turned away, with lineage and reason; of this commit, since other gates refuse others."""
        rows = [
            {"reason": item.rejected.reason, "detail": item.rejected.detail, "input": item.candidate.input,
             "output": item.candidate.output, "index": item.candidate.index, **asdict(item.candidate.lineage)}
            for item in refused
        ]  # fmt: skip
        if not rows:
            return None
        with pa.BufferOutputStream() as sink:
            pq.write_table(pa.Table.from_pylist(rows), sink)
            self._files.write_once(path, sink.getvalue().to_pybytes())
        return path


def _told(stage: str, iteration: int) -> str:
    """Example: "iteration 2, round"; exams say themselves whose they are."""
    return stage if stage.startswith("exam") else f"iteration {iteration + 1}, {stage}"


def _round(drained: Mapping[str, Any], committed: Mapping[str, Any]) -> Round:
    rejected = Counter(drained["rejected"]) + Counter(committed["rejected"])
    return Round(
        evaluated=drained["evaluated"],
        wrong=drained["wrong"],
        truncated=drained["truncated"],
        errors=drained["errors"],
        asked=drained["asked"],
        rows_asked=drained["rows_asked"],
        right_asked=drained.get("right_asked", 0),  # drained before there were targets but wrong ones
        accepted=committed["accepted"],
        rejected=dict(sorted(rejected.items())),
        stopped_by_budget=drained["budget_stops"] > 0,
    )
