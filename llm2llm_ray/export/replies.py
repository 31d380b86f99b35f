"""A run's teacher replies as a file of recorded ones, with which anybody can repeat the run (docs/recorded-replies.md).

Keeps: the same replies, the same bytes. Of several replies to one request the first is written: the one that the run went by,
unless the settings of its engine were changed since.
"""

from __future__ import annotations

import gzip
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm2llm_ray.asking.recorded import SAMPLING, prompt_sha_of, written_header, written_line
from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.rounds.augmenting import lineage_teacher
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.types import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedReplies:
    path: str
    replies: int
    left_out: int
    """Stored without all of their prompt, by an earlier version."""


def export_replies(record: RunRecord, out: Path) -> ExportedReplies:
    """Write every reply that is not a student's to `out`, gzipped where its name ends in .gz; holds them in memory.

    Raises UserError where the run has none, and where `out` is there or cannot be written.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name another file with --replies, or remove it")
    stored = sorted(_standing(record).items())
    lines = [line for _, entry in stored if (line := _line(record, entry)) is not None]
    if not lines:
        raise UserError(f"{record.name}: no reply of a teacher is stored there ({record.state}); there is nothing to export")
    header = written_header(model=_asked_of(record, stored[0][1]), made=_made(record, [entry for _, entry in stored]))
    data = "".join(f"{line}\n" for line in [header, *lines]).encode("ascii")
    _write(out, gzip.compress(data, mtime=0) if out.suffix == ".gz" else data)
    return ExportedReplies(path=str(out), replies=len(lines), left_out=len(stored) - len(lines))


def _standing(record: RunRecord) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The first reply of each request, by what a file's line is known by."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in _stored(record):
        request = entry["request"]
        sampling = _sampling(entry)
        key = (
            request["prompt_sha"], request["ordinal"], request["attempt"], *(repr(sampling[name]) for name in SAMPLING),
            _asked_of(record, entry), entry["reply"]["weights_sha"],
        )  # fmt: skip
        if key not in found or entry["time"] < found[key]["time"]:
            found[key] = entry
    return found


def _stored(record: RunRecord) -> Iterator[dict[str, Any]]:
    for folder in sorted({path.rpartition("/")[0] for path in record.files.list("replies")}):
        if not folder.startswith("replies/student-"):
            yield from read_replies(record.files, folder)


def _sampling(entry: Mapping[str, Any]) -> dict[str, Any]:
    """With what a request leaves open as it is asked (`Request.asked_with`)."""
    return {"top_p": 1.0, "seed": 0, **entry["request"]["sampling"]}


def _asked_of(record: RunRecord, entry: Mapping[str, Any]) -> str:
    """As rows' lineage names it; runs of earlier versions stored it with the run only."""
    told = entry["request"].get("asked_of")
    return str(told) if told else lineage_teacher(TeacherConfig.model_validate(record.config["teacher"]), entry["reply"]["model"])


def _line(record: RunRecord, entry: Mapping[str, Any]) -> str | None:
    """None where the prompt was not stored whole."""
    request = entry["request"]
    prompt = _prompt(request["prompt"])
    if prompt_sha_of(prompt) != request["prompt_sha"]:
        return None
    return written_line(
        prompt, ordinal=request["ordinal"], attempt=request["attempt"], sampling=_sampling(entry),
        reply=Reply(**entry["reply"]), model=_asked_of(record, entry),
    )  # fmt: skip


def _prompt(stored: Any) -> Mapping[str, Any]:
    """Earlier versions stored "role: content" for each message, and no stop words."""
    if isinstance(stored, str):
        return {"text": stored}
    if isinstance(stored, list):
        pairs = (message.partition(": ") for message in stored)
        return {"messages": [{"role": role, "content": content} for role, _, content in pairs]}
    return dict(stored)


def _made(record: RunRecord, entries: list[dict[str, Any]]) -> str:
    days = sorted({datetime.fromtimestamp(entry["time"], UTC).strftime("%Y-%m-%d") for entry in entries})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"in run {record.name}, {when}, written by llm2llm export"


def _write(out: Path, data: bytes) -> None:
    scratch = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}; name another file with --replies") from None
    finally:
        scratch.unlink(missing_ok=True)
