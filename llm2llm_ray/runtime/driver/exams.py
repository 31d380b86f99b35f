"""The test set, read once at the end of a run: the untrained, first and kept student, the teacher, and the matched baseline.

The baseline is the fair one: the seeds alone, from the base model, for as many optimizer updates as the kept student took in
all: more rows mean more updates, and more updates alone raise accuracy. A student that goes on from the one before
(`student.start_from: previous`) has taken the updates of every training before it, too. Where the kept student took as many as
the first, the first student is the baseline: nothing is trained or asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llm2llm_ray.accuracy import Grades, grade, paired_difference
from llm2llm_ray.asking.no_answer import NO_BUDGET, NOT_RECORDED
from llm2llm_ray.config.schedule import updates_in_all
from llm2llm_ray.rounds.rows import round_rows
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.streaming.streams import RayGraded
from llm2llm_ray.runtime.training.trainer import RayTrainer
from llm2llm_ray.types import DatasetVersion, Example, Iteration, Student


class Exams:
    def __init__(
        self, parts: Parts, versions: RecordedVersions, trainer: RayTrainer, before_training: Callable[[str, int], None]
    ) -> None:
        self._parts, self._versions, self._trainer, self._before_training = parts, versions, trainer, before_training
        self._marks: dict[str, dict[str, bool]] = {}
        self._told: dict[str, dict[str, Any]] = {}

    def hold(self, iterations: Sequence[Iteration], seeds: DatasetVersion, seed_rows: Iterable[Example]) -> dict[str, Any]:
        """Accuracies by who was examined, the kept student's difference to the baseline and to the first, and in how many
        updates the baseline is matched, and whether it is the first student. `iterations` end with the one whose student is kept
        (`run.keep`)."""
        inputs, config = self._parts.inputs, self._parts.config
        assert inputs.test is not None
        left_out: dict[str, str] = {}
        first, kept = iterations[0].student, iterations[-1].student
        untrained = Student(path=inputs.student_model, sha=inputs.student_sha, iteration=0)
        if config.evaluation.recorded_answers is None:
            self._sit("untrained", untrained)
        matched = _updates(iterations, config.student.start_from)
        self._sit("first", first)
        self._sit("kept", kept)
        self._told["kept"]["updates"] = matched["updates"]
        matched["first_is_baseline"] = config.evaluation.matched_baseline and first.metrics["updates"] == matched["updates"]
        if matched["first_is_baseline"]:
            self._marks["baseline"], self._told["baseline"] = self._marks["first"], dict(self._told["first"])
        elif config.evaluation.matched_baseline:
            self._before_training("baseline", kept.iteration)
            baseline = self._trainer.train_baseline(seeds, matched["updates"])
            self._sit("baseline", baseline)
        if config.evaluation.teacher_on_test:
            self._examine("teacher", self._parts.teacher_exam(inputs.test, seed_rows))
            missing = {reason: self._told["teacher"]["errors"].get(reason, 0) for reason in (NO_BUDGET, NOT_RECORDED)}
            if any(missing.values()):  # an accuracy over the other rows would be compared with those over all rows
                del self._told["teacher"]
                left_out["teacher"] = _not_examined(missing, inputs.test.num_rows)
        others = ("baseline",) if matched["first_is_baseline"] else ("baseline", "first")
        differences = {f"kept - {other}": self._difference("kept", other) for other in others if other in self._marks}
        return {"accuracy": self._told, "differences": differences, "left_out": left_out, "matched": matched}

    def _sit(self, who: str, student: Student) -> None:
        test = self._parts.inputs.test
        assert test is not None
        self._examine(who, self._parts.graded(student, test))
        self._told[who]["updates"] = student.metrics.get("updates", 0)

    def _examine(self, who: str, stream: RayGraded) -> None:
        record = self._versions.drained(stream, "exam", shown=f"exam ({who})")
        rows = round_rows(self._parts.files, record["result"]["folder"], ("id", "correct", "error"))
        self._marks[who] = {row["id"]: grade(row) == "right" for row in rows}
        self._told[who] = {
            **asdict(Grades.of(record["result"]).accuracy),
            "truncated": record["result"]["truncated"],
            "errors": record["result"]["errors"],
            "rows": record["result"]["folder"],
            "seconds": record["ended"] - record["started"],
        }

    def _difference(self, ours: str, theirs: str) -> dict[str, Any]:
        difference = paired_difference(self._marks[ours], self._marks[theirs])
        return asdict(difference) | {"verdict": difference.verdict}


def _not_examined(missing: Mapping[str, int], rows: int) -> str:
    if missing[NO_BUDGET]:
        return f"teacher.budget ran out: {missing[NO_BUDGET]} of {rows} test rows were not asked"
    return f"{missing[NOT_RECORDED]} of {rows} test rows are not in the file of recorded replies"


def _updates(iterations: Sequence[Iteration], start_from: str) -> dict[str, Any]:
    """How many updates the kept student has taken in all, and in how many trainings."""
    each = [int(iteration.student.metrics["updates"]) for iteration in iterations]
    return {"updates": updates_in_all(each, start_from), "trainings": len(each) if start_from == "previous" else 1}
