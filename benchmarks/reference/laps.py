"""The three loops of whole_loop.py as commands: each cold in a process of its own, timed from outside, and read afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from benchmarks.measuring.environment import stolen_seconds
from benchmarks.reference.stages import OUTCOME, Outcome, Span, Turn
from llm2llm_ray.config.file import load_config
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.machine import gpus
from llm2llm_ray.runtime.environment import CPU_TRAINING, values
from llm2llm_ray.timing.phases import ENGINES, STARTING
from llm2llm_ray.timing.timeline import Activity, timeline

Side = Literal["ours", "careful", "official"]
SIDES: tuple[Side, ...] = ("ours", "careful", "official")
_RUN_NAME = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One whole loop of one side."""

    side: Side
    round: int
    seconds: float
    """The command's wall time."""
    stolen_seconds: float | None
    """Processor seconds that the host took from this machine meanwhile."""
    outcome: Outcome

    def of(self, what: str) -> float:
        return sum(span.seconds for span in self.outcome.spans if span.what == what)

    @property
    def rest(self) -> float:
        """Seconds that no span accounts for: between stages, and the end of processes."""
        return self.seconds - sum(span.seconds for span in self.outcome.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What all laps are run on."""

    config: Path
    overrides: tuple[str, ...]
    work: Path
    stop_early: bool

    @property
    def gpu(self) -> bool:
        return load_config(self.config, list(self.overrides)).cluster.device != "cpu" and bool(gpus())

    def lap(self, side: Side, number: int) -> Lap:
        folder = self.work / f"{side}-{number}"
        folder.mkdir()
        stolen, began = stolen_seconds(), time.time()
        self._command(self._line(side, folder, began), self._env(side), folder / "log.txt")
        seconds, after = time.time() - began, stolen_seconds()
        taken = None if stolen is None or after is None else after - stolen
        outcome = ours(folder / _RUN_NAME, seconds) if side == "ours" else Outcome.read(folder / OUTCOME)
        return Lap(side=side, round=number, seconds=seconds, stolen_seconds=taken, outcome=outcome)

    def exam(self, lap: Lap) -> Mapping[str, bool]:
        """{row id: correct} of the lap's last student on the test rows; no part of any timing."""
        marks = self.work / f"{lap.side}-exam.json"
        line = [sys.executable, "-m", "benchmarks.reference.generation", "--config", str(self.config), *self._sets()]
        line += ["--student", lap.outcome.student, "--exam", str(marks)]
        self._command(line, self._env("careful"), self.work / "exam.txt")
        return cast(Mapping[str, bool], json.loads(marks.read_text()))

    def _line(self, side: Side, folder: Path, began: float) -> list[str]:
        if side == "ours":
            # The exams are left out of all three; test rows still keep copies of themselves out of the training rows.
            own = [f"run.name={_RUN_NAME}", f"run.folder={folder}", "evaluation.test=false"]
            return [sys.executable, "-m", "llm2llm_ray", "run", str(self.config), *self._sets(*own)]
        line = [sys.executable, "-m", f"benchmarks.reference.{side}", "--config", str(self.config), *self._sets()]
        line += ["--folder", str(folder), "--spawned", str(began)]
        return [*line, "--stop-early"] if side == "official" and self.stop_early else line

    def _sets(self, *more: str) -> list[str]:
        return [part for override in (*self.overrides, *more) for part in ("--set", override)]

    def _env(self, side: Side) -> dict[str, str]:
        """Ours as a user starts it, on a Ray of its own; the others with what our training workers get, and one GPU: of several,
        Hugging Face's Trainer would give each a batch."""
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        if side == "ours":
            return env
        threads = load_config(self.config, list(self.overrides)).cluster.threads or os.cpu_count() or 1
        env.setdefault("CUDA_VISIBLE_DEVICES", "0")
        return env | values(CPU_TRAINING) | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}

    def _command(self, line: list[str], env: dict[str, str], log: Path) -> None:
        with log.open("w") as output:
            done = subprocess.run(line, env=env, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(f"exit code {done.returncode} of {' '.join(line)}\n{log.read_text()[-3000:]}")


def ours(folder: Path, seconds: float) -> Outcome:
    """Our run, read from its folder. In a training all that is no update counts as load: worker, weights, export. Seconds in
    which the teacher is asked beside the student count as evaluation."""
    record = RunRecord.open(str(folder))
    report = record.report
    assert report is not None, f"{folder} has no report"
    outcome = Outcome(spans=[span for activity in timeline(record).activities for span in _spans(activity)])
    for told in report["iterations"]:
        at, turn = told["dataset"], told["round"]
        outcome.turns.append(
            Turn(
                index=told["index"], rows=at["num_rows"], updates=int(told["student"]["metrics"]["updates"]),
                **{name: turn[name] for name in ("evaluated", "wrong", "asked", "accepted")},
            )
        )  # fmt: skip
    last = report["iterations"][-1]
    outcome.student = last["student"]["path"]
    version = next(version for version in record.versions() if version.id == last["dataset"]["id"])
    outcome.last_rows = [row.input for row in record.version_rows(version)]
    # The command's imports before its first event, and Ray's end after the last one.
    around = seconds - sum(activity.phase.seconds for activity in timeline(record).activities)
    outcome.spans.append(Span(what="start", iteration=None, seconds=around))
    return outcome


def _spans(activity: Activity) -> list[Span]:
    phase, student, teacher = activity.phase, activity.student, activity.teacher
    number = int(phase.group.removeprefix("iteration ")) if phase.group.startswith("iteration ") else None
    if phase.name == "train":
        train = Span(
            what="train", iteration=number, seconds=activity.busy_seconds, rows=activity.rows or 0,
            updates=activity.updates, tokens=activity.trained_tokens,
        )  # fmt: skip
        return [train, Span(what="load", iteration=number, seconds=phase.seconds - activity.busy_seconds)]
    if phase.name == "round":
        answers = Span(what="evaluate", iteration=number, seconds=student.seconds, rows=student.requests, tokens=student.tokens)
        alone = activity.busy_seconds - student.seconds
        return [answers, Span(what="augment", iteration=number, seconds=alone, rows=teacher.requests, tokens=teacher.tokens)]
    names = {"commit": "gates", STARTING: "start", ENGINES: "load"}
    return [Span(what=names[phase.name], iteration=number, seconds=phase.seconds)] if phase.name in names else []
