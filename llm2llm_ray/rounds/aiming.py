"""From a folder of graded rows to the ids that the teacher is asked about, where targets are known only once all are graded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llm2llm_ray.accuracy import grade
from llm2llm_ray.config import Config
from llm2llm_ray.rounds.enough_answered import check_answered
from llm2llm_ray.rounds.rows import round_rows, tally
from llm2llm_ray.rounds.targeting import Seen, needs_all_rows, targets
from llm2llm_ray.storage.files import Files
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example


def aiming(files: Files, task: Task, config: Config) -> Callable[[int, str], frozenset[str]] | None:
    """Iteration, folder of its graded rows -> targets; None where wrong rows are asked about as they come.

    It raises as a round does that has too few answers, and before anything is paid for: with the missing answers there would be
    other targets.
    """
    if not needs_all_rows(config.augmentation):
        return None

    def aim(iteration: int, folder: str) -> frozenset[str]:
        told = {"folder": folder, **tally(files, folder)}
        check_answered(files, told, config.evaluation.max_unanswered, f"iteration {iteration + 1}, round")
        return targets(answered(files, folder, task), config.augmentation, run_seed=config.run.seed, iteration=iteration)

    return aim


def answered(files: Files, folder: str, task: Task) -> Iterator[Seen]:
    """The rows that have an answer."""
    for row in round_rows(files, folder, ("id", "input", "output", "correct", "error", "weakness")):
        if (found := grade(row)) != "unanswered":
            group = task.group(Example(id=row["id"], input=row["input"], output=row["output"]))
            yield Seen(id=row["id"], group=group, wrong=found == "wrong", weakness=row["weakness"])
