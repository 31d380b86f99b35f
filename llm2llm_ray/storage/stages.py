"""What a run has finished (stage records) and what happened in it (events).

Invariant: a stage's record is written once, after its results are durable, under a key made of its inputs, so a stage
whose record stands need not run again. A key holds only what changes the result; each stage's owner decides what that
is, and raises `version` when its code comes to give other results. Events are for people: nothing is decided from them.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, cast

from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.storage.files import Files

_STAGES = "stages"
_EVENTS = "events"


def stage_key(name: str, version: int, inputs: Mapping[str, Any]) -> str:
    """The key of a stage's result; TypeError on inputs without a stable form."""
    return fingerprint({"stage": name, "version": version, "inputs": dict(inputs)})


class StageRecords:
    """Records at stages/<name>-<iteration>-<key>.json."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def find(self, name: str, key: str) -> dict[str, Any] | None:
        """The record of the finished stage, or None when it has to run."""
        for path in self._files.list(_STAGES):
            file = path.removeprefix(f"{_STAGES}/")
            if file.startswith(f"{name}-") and file.endswith(f"-{key[:16]}.json"):
                record = cast(dict[str, Any], self._files.read_json(path))
                if record["name"] == name and record["key"] == key:
                    return record
        return None

    def record(
        self,
        name: str,
        key: str,
        *,
        inputs: Mapping[str, Any],
        result: Mapping[str, Any],
        started: float,
        ended: float,
        iteration: int | None = None,
        taken_from: str | None = None,
    ) -> dict[str, Any]:
        """Say that the stage is done (times are Unix seconds); returns the record that stands, the first one. `taken_from`: the
        run that did it."""
        standing = self.find(name, key)
        if standing is not None:
            return standing
        record = {
            "name": name,
            "key": key,
            "iteration": iteration,
            "inputs": dict(inputs),
            "result": dict(result),
            "started": started,
            "ended": ended,
            **({} if taken_from is None else {"taken_from": taken_from}),
        }
        path = self.path_of(record)
        # NaN is let through (as Python writes it): a metric must not cost a finished stage its record.
        self._files.write_once(path, json.dumps(record, indent=1).encode())
        return cast(dict[str, Any], self._files.read_json(path))

    @staticmethod
    def path_of(record: Mapping[str, Any]) -> str:
        """Where this record stands. Example: "stages/train-001-7d2680a4a75f9b10.json"."""
        number = "" if record["iteration"] is None else f"{record['iteration']:03d}-"
        return f"{_STAGES}/{record['name']}-{number}{record['key'][:16]}.json"

    def all(self) -> list[dict[str, Any]]:
        """Every record, in the order in which the stages ended."""
        records = [self._files.read_json(path) for path in self._files.list(_STAGES) if path.endswith(".json")]
        return sorted(records, key=lambda record: record["ended"])


class Events:
    """The run's journal: events.jsonl, one line per event. On a URI one small file per event, in events/."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def add(self, event: str, **fields: Any) -> None:
        """Append {"time": Unix seconds, "event": event, **fields}; in the file on return, not fsynced."""
        line = json.dumps({"time": time.time(), "event": event, **fields}).encode() + b"\n"
        if self._files.local_root is None:
            self._files.write_once(f"{_EVENTS}/{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl", line)
            return
        with self._files.open_append(f"{_EVENTS}.jsonl") as stream:
            place = os.fspath(self._files.local_root / f"{_EVENTS}.jsonl")
            if _is_torn(place):
                line = b"\n" + line
            with self._files.refusals():
                stream.write(line)

    def read(self) -> Iterator[dict[str, Any]]:
        """All events in order; a line cut short by a crash is passed over."""
        local = self._files.local_root is not None
        for path in [f"{_EVENTS}.jsonl"] if local else self._files.list(_EVENTS):
            if local and not self._files.exists(path):
                return
            for line in self._files.read_bytes(path).splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def _is_torn(place: str) -> bool:
    """Whether the last writer was killed in the middle of a line."""
    with open(place, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            return False
        stream.seek(size - 1)
        return stream.read(1) != b"\n"
