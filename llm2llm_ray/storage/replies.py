"""The reply store: every answer of a student or a teacher, durable before anybody uses it, so none is paid for twice.

Append-only JSON lines; each writing process has a segment file of its own, so writers need no lock. Records end in a
newline: what a crash cut short has none, is counted, and is passed over. Invariant: `put` returns only after fsync, and
for each key every reader agrees on one reply, the first. Not run on a real object store.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llm2llm_ray.errors import UserError
from llm2llm_ray.storage.files import Files
from llm2llm_ray.types import Reply

_WINDOW_S = 0.02


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a record lies; ordered by age, so that readers agree on the first of a key."""

    time: float
    segment: str
    offset: int
    length: int


@dataclass(slots=True, eq=False)
class _Group:
    """Records that share one write and one fsync."""

    lines: dict[str, bytes] = field(default_factory=dict)
    """By key, each without its beginning: the time, which is set when the group is written."""


class ReplyLog:
    """One process's view of a folder of replies: what was durable when it was opened, and what it puts itself.

    Use it from one event loop. It holds some 300 bytes per stored reply in memory (the replies stay on disk), so give
    each stage a folder of its own. `torn` counts the lines cut short by crashes, `syncs` the groups made durable.
    """

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._open_group: tuple[_Group, asyncio.Task[None]] | None = None
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        self._segment: tuple[str, io.FileIO] | None = None
        self.torn = 0
        self.syncs = 0
        for place, record in _scan(files, folder):
            if record is None:
                self.torn += 1
            else:
                self._places[record["key"]] = min(place, self._places.get(record["key"], place))

    def __len__(self) -> int:
        """Number of keys that have a reply."""
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def find(self, key: str) -> Reply | None:
        """The stored reply; one small read."""
        place = self._places.get(key)
        if place is None:
            return None
        with self._files.open_input(place.segment) as stream:
            record = json.loads(stream.read_at(place.length, place.offset))
        return Reply(**record["reply"])

    async def put(self, key: str, reply: Reply, request: Mapping[str, Any]) -> Reply:
        """Store `reply` and return the one that stands, durable: an earlier one if the key had one already.

        `request` (JSON: prompt_sha, sampling, row_id, ordinal, attempt) is kept beside it. Raises UserError when the
        disk is full, OSError when it failed: the reply must not be used then, and may be put again.
        """
        if key not in self._places:
            task = self._pending.get(key)
            first = task is None
            if task is None:
                task = self._join_group(key, reply, request)
            # A caller that is cancelled must not take the group's other callers with it.
            await asyncio.shield(task)
            if first:
                return reply
        standing = self.find(key)
        assert standing is not None
        return standing

    def close(self) -> None:
        """Close the segment file. Everything that `put` returned is durable without it."""
        if self._segment is not None:
            self._segment[1].close()
            self._segment = None

    def _join_group(self, key: str, reply: Reply, request: Mapping[str, Any]) -> asyncio.Task[None]:
        record = {"key": key, "request": dict(request), "reply": asdict(reply)}
        # ASCII: half a surrogate pair in a model's text survives, and no character inside a record ends a line.
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode().removeprefix(b"{") + b"\n"
        if self._open_group is None:
            group = _Group()
            self._open_group = group, asyncio.create_task(self._commit(group))
        group, task = self._open_group
        group.lines[key] = line
        self._pending[key] = task
        return task

    async def _commit(self, group: _Group) -> None:
        try:
            await asyncio.sleep(_WINDOW_S)
            async with self._writing:
                self._open_group = None  # from here on puts gather in the next group
                stamp = time.time()
                lines = {key: f'{{"time":{stamp!r},'.encode() + rest for key, rest in group.lines.items()}
                segment, offset = await asyncio.to_thread(self._append, b"".join(lines.values()))
            for key, line in lines.items():
                self._places[key] = _Place(stamp, segment, offset, len(line))
                offset += len(line)
        finally:
            if self._open_group is not None and self._open_group[0] is group:
                self._open_group = None
            for key in group.lines:
                self._pending.pop(key, None)

    def _append(self, data: bytes) -> tuple[str, int]:
        """Write and sync; the segment's path and the offset at which `data` begins."""
        if self._files.local_root is None:
            path = f"{self._folder}/segment-{uuid.uuid4().hex}.jsonl"
            self._files.write_once(path, data)
            self.syncs += 1
            return path, 0
        if self._segment is None:
            path = f"{self._folder}/segment-{uuid.uuid4().hex}.jsonl"
            self._segment = path, self._files.open_append(path)
        path, stream = self._segment
        try:
            offset = stream.seek(0, io.SEEK_END)
            view = memoryview(data)
            with self._files.refusals():
                while view:
                    view = view[stream.write(view) :]
                os.fsync(stream.fileno())
        except (OSError, UserError):
            # Half a line may stand at the end, and a failed fsync may have lost pages: never write behind it.
            self.close()
            raise
        self.syncs += 1
        return path, offset


def read_replies(files: Files, folder: str) -> Iterator[dict[str, Any]]:
    """Every durable record below `folder`: {"key", "time", "request", "reply"}; torn lines are passed over.

    A key that two processes paid for appears twice; the one with the smallest time is the one that counts.
    """
    for _, record in _scan(files, folder):
        if record is not None:
            yield record


def _scan(files: Files, folder: str) -> Iterator[tuple[_Place, dict[str, Any] | None]]:
    for segment in files.list(folder):
        if not segment.endswith(".jsonl"):
            continue
        offset = 0
        with files.open_input(segment) as raw:
            for line in io.BufferedReader(raw):
                record = _parse(line)
                stamp = record["time"] if record is not None else 0.0
                yield _Place(stamp, segment, offset, len(line)), record
                offset += len(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record, or None for a line that a crash cut short (or, after power loss, filled with zeros)."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"key", "time", "reply"} <= record.keys() else None
