"""Settings that a run cannot follow, and why: told in its plan. They are no mistake, a recipe may set them for any task."""

from __future__ import annotations

from llm2llm_ray.config import Config
from llm2llm_ray.preflight import Checked


def no_effect(config: Config, checked: Checked) -> list[str]:
    if not config.evaluation.structured:
        return []
    if not config.evaluation.student_held:
        return ["evaluation.structured has no effect: recorded answers are what they are."]
    if checked.task.choices(checked.splits.seed[0].input) is None:
        return [f"evaluation.structured has no effect: the answers of {config.task.name} are no closed set (Task.choices)."]
    return []
