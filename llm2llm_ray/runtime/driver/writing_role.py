"""Who writes new rows in a round: a model that is asked, or nobody, where a file has the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llm2llm_ray.asking.scripted import check_unchanged
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.rounds.augmenting import Augment, Peers
from llm2llm_ray.rounds.given import Given, read_given
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.types import Example

Writer = Callable[[int], Augment | Given]
"""Iteration -> the role."""


def writer(inputs: Inputs, settings: AugmentationConfig, seeds: Iterable[Example]) -> Writer:
    config, task = inputs.config, inputs.task
    if config.teacher.kind == "rows":
        file = config.teacher.model
        check_unchanged(file, inputs.teacher_sha)
        rows = read_given(file)
        return lambda iteration: Given(task, rows, file=file, settings=settings, iteration=iteration)
    peers = Peers(task, seeds, inputs.folds)
    return lambda iteration: Augment(
        task, peers, teacher=config.teacher, settings=settings, iteration=iteration, run_seed=config.run.seed
    )
