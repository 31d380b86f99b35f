"""Settings that a run cannot follow, and why: told in its plan. They are no mistake, a recipe may set them for any task."""

from __future__ import annotations

from collections.abc import Iterator

from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import num_iterations
from llm2llm_ray.preflight import Checked


def no_effect(config: Config, checked: Checked) -> list[str]:
    return [*_choices(config, checked), *_dev_rows(config, checked)]


def _choices(config: Config, checked: Checked) -> Iterator[str]:
    if not config.evaluation.structured:
        return
    if not config.evaluation.student_held:
        yield "evaluation.structured has no effect: recorded answers are what they are."
    elif checked.task.choices(checked.splits.seed[0].input) is None:
        yield f"evaluation.structured has no effect: the answers of {config.task.name} are no closed set (Task.choices)."


def _dev_rows(config: Config, checked: Checked) -> Iterator[str]:
    patience, students = config.run.patience, num_iterations(config)
    if checked.splits.dev:
        if patience is not None and patience > students - 2:
            without_gain = max(0, students - 2)
            yield f"run.patience={patience} has no effect: of {students} students, {without_gain} at most can be without a gain."
        return
    wanted = {
        "evaluation.check_teacher": config.evaluation.check_teacher,
        "run.keep=best": config.run.keep == "best",
        "run.patience": patience is not None,
    }
    if named := [name for name, is_wanted in wanted.items() if is_wanted]:
        yield (
            f"{', '.join(named)}: no effect without dev rows (task.dev). Whether the teacher is better than the student is then "
            "not known, and the last student is kept."
        )
