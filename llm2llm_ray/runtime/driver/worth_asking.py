"""Whether the teacher should be asked for rows now: is it better than the student, and does the student still gain?

Both are answered before anything is paid for in a round, on rows that no student is trained on: the dev split. Exams are recorded
like every other, so a run that goes on asks nobody again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from llm2llm_ray.accuracy import Grades, Proportion
from llm2llm_ray.asking.no_answer import NOT_RECORDED
from llm2llm_ray.rounds.dev_gain import kept, without_gain
from llm2llm_ray.rounds.versioning import RecordedVersions
from llm2llm_ray.runtime.driver.parts import Parts
from llm2llm_ray.runtime.streaming.streams import RayGraded
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.types import Example, Student


class WorthAsking:
    """Called by the loop with each student before its errors are augmented; `stopped` then says why it was not worth it."""

    def __init__(self, parts: Parts, versions: RecordedVersions, events: Events, seed_rows: Iterable[Example]) -> None:
        self._parts, self._versions, self._events, self._seed_rows = parts, versions, events, seed_rows
        self._on_dev: dict[int, Proportion] = {}
        self.teacher_check: dict[str, Any] | None = None
        self.stopped = ""

    def __call__(self, student: Student) -> bool:
        config = self._parts.config
        if self._checked and student.iteration == 0 and (why := self._no_better_teacher(student)):
            if config.augmentation.require_better_teacher:
                self.stopped = f"{why} (augmentation.require_better_teacher)"
        elif config.run.patience is not None and self._parts.inputs.dev is not None:
            self.on_dev(student)
            if (students := without_gain(self._accuracies())) >= config.run.patience:
                self.stopped = f"no gain on the dev rows for {students} students (run.patience)"
        if self.stopped:
            self._events.add("asking_stopped", iteration=student.iteration, why=self.stopped)
        return not self.stopped

    @property
    def _checked(self) -> bool:
        config = self._parts.config
        return self._parts.inputs.dev is not None and config.checks_teacher

    def on_dev(self, student: Student) -> Proportion:
        """The student's accuracy on the dev rows."""
        dev = self._parts.inputs.dev
        assert dev is not None
        if student.iteration not in self._on_dev:
            shown = f"exam (student {student.iteration + 1} on dev)"
            self._on_dev[student.iteration] = self._accuracy(self._parts.graded(student, dev), shown)
        return self._on_dev[student.iteration]

    def kept(self, students: list[Student]) -> int:
        """Number of the student that the run ends with (`run.keep`)."""
        if self._parts.config.run.keep == "last" or self._parts.inputs.dev is None:
            return len(students) - 1
        return kept([self.on_dev(student).value for student in students])

    def told(self) -> dict[str, Any]:
        """For the report: the teacher's check, the accuracies on dev by iteration, and why asking stopped."""
        return {
            "teacher_check": self.teacher_check,
            "dev": {str(at): asdict(found) for at, found in sorted(self._on_dev.items())},
            "stopped": self.stopped,
        }

    def _accuracies(self) -> list[float]:
        return [self._on_dev[at].value for at in sorted(self._on_dev)]

    def _no_better_teacher(self, student: Student) -> str:
        """Why the teacher is not known to be better than the student; "" when it is. `better` is None where a file of recorded
        replies lacks some of the rows: an accuracy over the others would be compared with one over all."""
        dev = self._parts.inputs.dev
        assert dev is not None
        ours = self.on_dev(student)
        result = self._exam(self._parts.teacher_exam(dev, self._seed_rows), "exam (teacher on dev)")
        theirs, missing = Grades.of(result).accuracy, result["errors"].get(NOT_RECORDED, 0)
        better = None if missing else theirs.value > ours.value
        self.teacher_check = {
            "rows": "dev", "student": asdict(ours), "teacher": None if missing else asdict(theirs), "better": better,
        }  # fmt: skip
        self._events.add("teacher_checked", **self.teacher_check)
        if missing:
            return f"whether the teacher is better is not known: {missing} of {dev.num_rows} dev rows are not in its file"
        return "" if better else "the teacher is not better than the student"

    def _accuracy(self, stream: RayGraded, shown: str) -> Proportion:
        return Grades.of(self._exam(stream, shown)).accuracy

    def _exam(self, stream: RayGraded, shown: str) -> dict[str, Any]:
        result: dict[str, Any] = self._versions.drained(stream, "exam", shown=shown)["result"]
        return result
