"""Stages taken from a sibling run instead of run again: the same key means the same result.

For runs of one study, which train the same first student and hold the same exams. What a record names is linked (locally; copied
on object stores) into the run's own folder, so that it is whole without its siblings, and the record says where it is from. It
took no time here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords

SHARED = ("train", "exam")
"""Stages whose result is their record and the folders that it names. A round also has the teacher's replies."""


class SiblingStages(StageRecords):
    """`around` holds all the runs; `own` and `siblings` are their folders in it. Siblings that are not there yet are no fault."""

    def __init__(self, around: Files, own: str, siblings: Sequence[str]) -> None:
        files = Files(around.absolute(own))
        super().__init__(files)
        self._around, self._own, self._siblings = around, own, siblings
        self._records, self._events = StageRecords(files), Events(files)

    def find(self, name: str, key: str) -> dict[str, Any] | None:
        """The run's own record of the finished stage, or a sibling's, which then becomes its own; None where it has to run."""
        found = super().find(name, key)
        if found is not None or name not in SHARED:
            return found
        for sibling in self._siblings:
            theirs = StageRecords(Files(self._around.absolute(sibling))).find(name, key)
            if theirs is not None and self._linked(sibling, theirs):
                return self._taken(sibling, theirs)
        return None

    def _linked(self, sibling: str, record: Mapping[str, Any]) -> bool:
        """Whether everything that the record names was still there to be linked."""
        for folder in _folders(record["result"]):
            files = self._around.list(f"{sibling}/{folder}")
            if not files:
                return False
            for path in files:
                self._around.link(path, self._own + path.removeprefix(sibling))
        return True

    def _taken(self, sibling: str, theirs: Mapping[str, Any]) -> dict[str, Any]:
        now = time.time()
        found = self._records.record(
            theirs["name"], theirs["key"], inputs=theirs["inputs"], result=theirs["result"], started=now, ended=now,
            iteration=theirs["iteration"], taken_from=sibling,
        )  # fmt: skip
        told = {"stage": theirs["name"], "iteration": theirs["iteration"], "key": theirs["key"]}
        self._events.add("stage_taken", **told, taken_from=sibling)
        return found


def _folders(result: Mapping[str, Any]) -> Iterator[str]:
    """A student's and its snapshot's, or an exam's rows."""
    for part in (result, result.get("early") or {}):
        yield from (part[name] for name in ("path", "folder") if name in part)
