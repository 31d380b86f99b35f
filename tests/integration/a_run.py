"""A small run of the real command in a process of its own, for tests that look at what it leaves and kill it on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LABELS = ["billing", "shipping", "login"]


def texts(count: int, start: int) -> list[dict[str, str]]:
    about = {"billing": "the charge on my card", "shipping": "the parcel that is late", "login": "my lost password"}
    return [
        {"id": f"r-{n}", "text": f"Message {n}: what about {about[LABELS[n % 3]]}, number {n * 7}?", "label": LABELS[n % 3]}
        for n in range(start, start + count)
    ]


@dataclass(frozen=True)
class Run:
    folder: Path
    config: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / "runs" / str(self.config["run"]["name"])

    def start(self, **env: str) -> subprocess.Popen[str]:
        file = self.folder / "run.yaml"
        file.write_text(yaml.safe_dump(self.config))
        log = (self.folder / "log.txt").open("a")
        return subprocess.Popen(
            [sys.executable, "-m", "llm2llm_ray", "run", str(file)],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | env,
        )

    def finish(self, timeout_s: float = 1500) -> None:
        process = self.start()
        code = process.wait(timeout_s)
        assert code == 0, f"exit {code}: {(self.folder / 'log.txt').read_text()[-3000:]}"

    def kill_when(self, reached: Callable[[Run], bool], signal_: int = signal.SIGKILL, timeout_s: float = 900) -> int:
        """Start, wait until `reached`, send the signal to the entrypoint, and return its exit code."""
        process = self.start_until(reached, timeout_s)
        process.send_signal(signal_)
        return process.wait(120)

    def start_until(self, reached: Callable[[Run], bool], timeout_s: float = 900, **env: str) -> subprocess.Popen[str]:
        process = self.start(**env)
        deadline = time.monotonic() + timeout_s
        while not reached(self):
            assert process.poll() is None, (self.folder / "log.txt").read_text()[-3000:]
            assert time.monotonic() < deadline, f"never reached: {list(self.events())}"
            time.sleep(0.005)
        return process

    def events(self) -> Iterator[dict[str, Any]]:
        file = self.path / "events.jsonl"
        for line in file.read_text().splitlines() if file.exists() else ():
            yield json.loads(line)

    def finished(self) -> list[tuple[str, str]]:
        """Every finished stage, once for each time it was executed."""
        return [(event["stage"], event["key"]) for event in self.events() if event["event"] == "stage_finished"]

    def report(self) -> dict[str, Any]:
        return json.loads((self.path / "report.json").read_text())

    def version_ids(self) -> list[str]:
        return [json.loads(f.read_text())["id"] for f in sorted(self.path.glob("versions/*/manifest.json"))]

    def teacher_calls(self) -> list[tuple[str, int]]:
        """What the teacher's own log says it was asked: prompt and sampling seed."""
        file = self.path / "teacher_calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(call["prompt_sha"], call["seed"]) for call in map(json.loads, lines)]

    def stored_calls(self) -> set[tuple[str, int]]:
        """The teacher's replies that are durable, named as `teacher_calls` names calls."""
        lines = [line for file in self.path.glob("replies/teacher-0*/*.jsonl") for line in file.read_text().splitlines(True)]
        requests = [json.loads(line)["request"] for line in lines if line.endswith("\n")]
        return {(request["prompt_sha"], request["sampling"]["seed"]) for request in requests}

    def left_behind(self, name: str = "") -> list[int]:
        """Live processes that carry this run's mark, and whose name begins so."""
        mark = f"LLM2LLM_RUN={self.path}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and mark in (entry / "environ").read_bytes().split(b"\0")
                    and (entry / "comm").read_text().startswith(name)
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def scripted_run(folder: Path, model: str, *, iterations: int = 2, latency_s: float = 0.3) -> Run:
    """Real training of a tiny model on Ray Train and DeepSpeed; answers recorded, teacher scripted, both deterministic."""
    run = _base(folder, model, iterations)
    answers = [
        {"input": row["text"], "answers": [" login" if n % 2 else f" {row['label']}"] * 2 + [f" {row['label']}"]}
        for n, row in enumerate(texts(12, 0))
    ] + [{"input": row["text"], "answers": [f" {row['label']}"]} for row in texts(6, 100)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    replies = [{"reply": f"A new request of kind {n}, with words {chr(97 + n % 26) * (n + 3)} of its own"} for n in range(40)]
    (folder / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in replies))
    run.config["teacher"] = {
        "kind": "scripted", "model": str(folder / "replies.jsonl"), "style": "completion", "latency_s": latency_s,
    }  # fmt: skip
    run.config["evaluation"] |= {"recorded_answers": str(folder / "answers.jsonl"), "in_flight": 2, "matched_baseline": False}
    run.config["teacher"]["in_flight"] = 2
    return run


def served_run(folder: Path, model: str, *, iterations: int = 2) -> Run:
    """Student and teacher both behind vLLM and Ray Serve."""
    run = _base(folder, model, iterations)
    engine = {"max_model_len": 256, "max_num_seqs": 8, "dtype": "float32", "kv_cache_gib": 0.1}
    run.config["student"]["engine"] = engine
    run.config["teacher"] = {"kind": "serve", "model": model, "style": "completion", "max_tokens": 24, "engine": engine}
    return run


def _base(folder: Path, model: str, iterations: int) -> Run:
    for name, rows in (("seed", texts(12, 0)), ("test", texts(6, 100))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config: dict[str, Any] = {
        "recipe": "paper",
        "task": {"name": "classification", "data": str(folder), "options": {"labels": LABELS}},
        "student": {
            "model": model, "epochs": 4, "global_batch_size": 6, "micro_batch_size": 6, "learning_rate": 1e-3,
            "max_length": 128, "checkpoint_every_updates": 2,
        },
        "augmentation": {"attempts": 2},
        "evaluation": {"max_tokens": 8},
        "cluster": {"threads": 1},
        "run": {"name": f"t{os.getpid()}", "folder": str(folder / "runs"), "iterations": iterations},
    }  # fmt: skip
    return Run(folder=folder, config=config)
