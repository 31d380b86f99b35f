"""The test set, read once at the end of a run: the untrained, first and last student, the teacher, and the matched baseline.

The baseline is the fair one: the seeds alone, from the base model, for as many optimizer updates as the last student took
(more rows mean more updates, and more updates alone raise accuracy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from llm2llm_ray.accuracy import paired_difference, proportion
from llm2llm_ray.rounds.rows import round_rows
from llm2llm_ray.rounds.solving import NO_BUDGET
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
        """Accuracies by who was examined, and the last student's difference to the baseline and to the first."""
        inputs, config = self._parts.inputs, self._parts.config
        assert inputs.test is not None
        left_out: dict[str, str] = {}
        first, last = iterations[0].student, iterations[-1].student
        untrained = Student(path=inputs.student_model, sha=inputs.student_sha, iteration=0)
        if config.evaluation.recorded_answers is None:
            self._sit("untrained", untrained)
        self._sit("first", first)
        self._sit("last", last)
        if config.evaluation.matched_baseline:
            self._before_training("baseline", last.iteration)
            baseline = self._trainer.finetune_baseline(seeds, int(last.metrics["updates"]))
            self._sit("baseline", baseline)
        if config.evaluation.teacher_on_test:
            self._examine("teacher", self._parts.teacher_exam(inputs.test, seed_rows))
            unpaid = self._told["teacher"]["errors"].get(NO_BUDGET, 0)
            if unpaid:  # an accuracy over the rows that were paid for would be compared with those over all rows
                del self._told["teacher"]
                left_out["teacher"] = f"teacher.budget ran out: {unpaid} of {inputs.test.num_rows} test rows were not asked"
        differences = {
            f"last - {other}": self._difference("last", other) for other in ("baseline", "first") if other in self._marks
        }
        return {"accuracy": self._told, "differences": differences, "left_out": left_out}

    def _sit(self, who: str, student: Student) -> None:
        test = self._parts.inputs.test
        assert test is not None
        self._examine(who, self._parts.graded(student, test))
        self._told[who]["updates"] = student.metrics.get("updates", 0)

    def _examine(self, who: str, stream: RayGraded) -> None:
        record = self._versions.drained(stream, "exam", shown=f"exam ({who})")
        rows = round_rows(self._parts.files, record["result"]["folder"], ("id", "correct"))
        marks = {row["id"]: bool(row["correct"]) for row in rows}
        self._marks[who] = marks
        self._told[who] = {
            **asdict(proportion(sum(marks.values()), len(marks))),
            "truncated": record["result"]["truncated"],
            "errors": record["result"]["errors"],
            "rows": record["result"]["folder"],
            "seconds": record["ended"] - record["started"],
        }

    def _difference(self, ours: str, theirs: str) -> dict[str, Any]:
        difference = paired_difference(self._marks[ours], self._marks[theirs])
        return asdict(difference) | {"verdict": difference.verdict}
