"""Everything that can be wrong with a run's inputs and can be seen without Ray or a model: checked first, in one place.

Each failure is one UserError naming file, field, value and remedy. What needs a tokenizer or a device is checked by
`runtime.driver.launch`, still before any engine starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llm2llm_ray.asking.no_answer import NOT_RECORDED, remedy
from llm2llm_ray.asking.openai_client import check_surroundings
from llm2llm_ray.asking.recorded import About, RecordedReplies, read_recorded
from llm2llm_ray.asking.request import Request
from llm2llm_ray.asking.scripted import ScriptedStudent, ScriptedTeacher
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.config import Config, TeacherConfig
from llm2llm_ray.config.schedule import num_iterations
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.first_requests import first_of_every_row, first_requests, first_votes
from llm2llm_ray.rounds.folds import folds_for
from llm2llm_ray.rounds.given import check_given
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.splits import Splits, load_splits
from llm2llm_ray.tasks.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    task: Task
    splits: Splits
    recorded: About | None = None
    """What the file of the teacher's recorded replies says of itself."""
    folds: Mapping[str, int] = field(default_factory=dict)
    """Seed id -> fold, with `evaluation.error_source: cross_fit` (rounds/folds.py)."""

    def notices(self, most: int = 10) -> list[str]:
        """Seed rows that a person should look at, `most` of them by name; the seeds' manifest has all."""
        found = self.splits.notices
        if not found:
            return []
        left = [f"- and {len(found) - most} more, in versions/000-*/manifest.json of the run"] if len(found) > most else []
        return [f"Seed rows to look at ({len(found)}):", *(f"- {line}" for line in found[:most]), *left]


def check(config: Config, base_dir: str | Path) -> Checked:
    """Load task and rows, look at everything, ask the teacher service what the run will ask it. Raises UserError."""
    return check_loaded(config, *load_rows(config, base_dir))


def load_rows(config: Config, base_dir: str | Path) -> tuple[Task, Splits]:
    """The part of `check` that depends on `task` (and `augmentation.near_test`) alone."""
    return load_splits(
        config.task, load_task(config.task.name, config.task.options), base_dir=base_dir,
        near=lambda held_out, known: HeldOut(held_out, config.augmentation.near_test, known).find,
    )  # fmt: skip


def check_loaded(config: Config, task: Task, splits: Splits) -> Checked:
    """The rest of `check`."""
    if config.evaluation.error_source == "dev" and not splits.dev:
        raise UserError(
            "evaluation.error_source: dev needs labelled dev rows, but task.data has no dev file; name one in task.dev or use "
            "evaluation.error_source=seed"
        )
    if config.augmentation.require_better_teacher and not splits.dev:
        raise UserError(
            "augmentation.require_better_teacher compares teacher and student on dev rows, but task.data has no dev file; "
            "name one in task.dev, or set augmentation.require_better_teacher=false"
        )
    if config.evaluation.test and not splits.test:
        raise UserError(
            "evaluation.test is on, but task.data has no test file; name one in task.test, or set evaluation.test=false to run "
            "without a final accuracy"
        )
    if config.gates.caps.per_class is not None and not any(map(task.group, splits.seed)):
        raise UserError(
            f"gates.caps.per_class={config.gates.caps.per_class}: {config.task.name} has no classes; use gates.caps.per_seed"
        )
    folds = folds_for(config, task, splits.seed)
    recorded = _teacher(config, task, splits)
    if config.judge_apart:
        _ask(config.judge_apart, lambda: [first_votes(config, task, splits)])
    if config.evaluation.recorded_answers:
        ScriptedStudent(config.evaluation.recorded_answers)
    return Checked(task=task, splits=splits, recorded=recorded, folds=folds)


def _teacher(config: Config, task: Task, splits: Splits) -> About | None:
    teacher = config.teacher
    given = teacher.model if teacher.kind == "recorded" else teacher.replies
    replies = None if given is None else read_recorded(given)
    if teacher.kind == "recorded":
        assert replies is not None
        _check_some_recorded(replies, config, task, splits)
    elif teacher.kind == "rows":
        check_given(teacher.model, [row.id for row in splits.error_source(config.evaluation.error_source)])
    else:
        _ask(teacher, lambda: first_requests(config, task, splits))
    return None if replies is None else replies.about


def _ask(teacher: TeacherConfig, requests_of: Callable[[], list[list[Request]]]) -> None:
    """A teacher or judge. `requests_of` says what the run will ask it, of each kind a few."""
    if teacher.kind == "scripted":
        ScriptedTeacher(teacher.model, latency_s=teacher.latency_s)
    elif teacher.kind == "openai":
        check_surroundings(teacher)
        # The openai package takes a second to import, and every `llm2llm` command comes by here.
        from llm2llm_ray.asking.openai_service import OpenAITeacher

        async def probe() -> None:
            client = OpenAITeacher(teacher)
            try:
                for requests in requests_of():
                    await client.probe(requests)
            finally:
                await client.aclose()

        asyncio.run(probe())


def _check_some_recorded(replies: RecordedReplies, config: Config, task: Task, splits: Splits) -> None:
    """Where a prompt does not hold what the student will say, it is known now whether the file is for this run at all."""
    if config.augmentation.show_wrong_answer or num_iterations(config) == 1:  # nothing is asked for one student
        return
    asked = 0
    for request in first_of_every_row(config, task, splits):
        asked += 1
        if request in replies:
            return
    raise UserError(
        f"teacher.model: {replies.about.file} ({replies.about.replies} replies) has none to what is asked first about any of the "
        f"{asked} rows: {remedy(NOT_RECORDED)}"
    )
