"""What a run's models computed, read from its folder: every optimizer update and every request, with its time and tokens. No Ray.

A reply counts when it came, in the session that asked for it; a later session that finds it stored asked nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.storage.training_log import TrainingLog
from llm2llm_ray.timing.intervals import Interval

Role = Literal["student", "teacher", "judge"]
ROLES: tuple[Role, ...] = ("student", "teacher", "judge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One optimizer update. Unix seconds."""

    started: float
    ended: float
    tokens: int
    """Of the batch, without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One durable reply. Unix seconds."""

    role: Role
    sent: float | None
    """None in runs made before replies kept it."""
    came: float
    prompt_tokens: int
    generated_tokens: int


class Work:
    """One run's work. Example: Work(RunRecord.open("runs/demo")).updates(key)"""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._stages = {stage["key"]: stage for stage in record.stages}

    @cached_property
    def asked(self) -> list[Asked]:
        """Every reply of student, teacher and judge, in the order in which they came."""
        return sorted(self._replies(), key=lambda reply: reply.came)

    def _replies(self) -> Iterator[Asked]:
        for folder in sorted({path.split("/")[1] for path in self._record.files.list("replies")}):
            role = cast(Role, folder.partition("-")[0])
            for record in read_replies(self._record.files, f"replies/{folder}"):
                request, reply = record["request"], record["reply"]
                sent = request.get("sent")
                yield Asked(
                    role=role,
                    sent=sent,
                    came=record["time"] if sent is None else sent + request["seconds"],
                    prompt_tokens=reply["prompt_tokens"],
                    generated_tokens=reply["completion_tokens"],
                )

    def updates(self, key: str) -> list[Update]:
        """Of the training with this stage key, in the order in which they ran; one that was repeated appears twice."""
        return [
            Update(started=line["time"] - line["seconds"], ended=line["time"], tokens=line["tokens"])
            for line in self.training_lines(key)
            if "loss" in line
        ]

    def training_lines(self, key: str) -> list[dict[str, Any]]:
        """The training's log: updates, and events `start`, `checkpoint`, `early` and `end`."""
        mine = [path for path in self._logs if path.endswith(f"-{key[:12]}.jsonl")]
        return [line for path in mine for line in TrainingLog(self._record.files, path.removesuffix(".jsonl")).read()]

    @cached_property
    def _logs(self) -> list[str]:
        """Of all trainings."""
        return [path for path in self._record.files.list("train") if path.endswith(".jsonl")]

    def stage(self, key: str | None) -> Mapping[str, Any] | None:
        """The record of a finished stage."""
        return self._stages.get(key) if key else None

    def rows_open(self, key: str | None) -> dict[Role, list[Interval]]:
        """When each row of a finished round or exam was with the student and with the teacher; waiting for a slot included."""
        stage = self.stage(key)
        if stage is None or "folder" not in stage["result"]:
            return {}
        rows = list(self._record.round_rows(stage["result"]["folder"]))
        solver: Role = "teacher" if _of_teacher(stage) else "student"
        found: dict[Role, list[Interval]] = {solver: [(row["solved_from"], row["solved_until"]) for row in rows]}
        asked = [(row["asked_from"], row["asked_until"]) for row in rows if row.get("asked")]
        return found | {"teacher": asked} if asked else found

    def who(self, key: str | None) -> str | None:
        """Whose exam a stage is: teacher, untrained, baseline, or `student i`; None for other stages and unknown weights."""
        stage = self.stage(key)
        if stage is None or stage["name"] != "exam":
            return None
        if _of_teacher(stage):
            return "teacher"
        for training in self._record.stages:
            if training["name"] == "train":
                if training["result"]["sha"] == stage["inputs"]["model"]:
                    return "baseline" if training["iteration"] is None else f"student {training['iteration']}"
                if training["result"]["start_sha"] == stage["inputs"]["model"]:
                    return "untrained"
        return None

    def signs(self) -> list[float]:
        """Times at which the run was alive, beside its events."""
        keys = {path.removesuffix(".jsonl").rpartition("-")[2] for path in self._logs}
        return [line["time"] for key in keys for line in self.training_lines(key)] + [reply.came for reply in self.asked]


def _of_teacher(stage: Mapping[str, Any]) -> bool:
    """Whether a stage is the teacher's own exam: all others name the student that is examined."""
    return stage["name"] == "exam" and "model" not in stage["inputs"]
