"""What a run will ask its teacher and its judge, known before any row is wrong: so that a request can be tried, and its text be
rendered.

Real prompts of the task with the settings of the run; the answer of another row stands for the student's wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest

from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import asking
from llm2llm_ray.rounds.augmenting import Augment, Peers
from llm2llm_ray.rounds.blind_exam import blind_exam, shown_blind
from llm2llm_ray.rounds.folds import folds_for
from llm2llm_ray.rounds.judging import Judge
from llm2llm_ray.tasks.splits import Splits
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Graded

_TRIED = 3
"""Rows of each kind: one reply may be withheld or run out of tokens by chance."""


def first_requests(config: Config, task: Task, splits: Splits) -> list[list[Request]]:
    """Requests of each kind that the teacher gets, for the longest rows; a kind that the run does not ask is left out."""
    sources = splits.error_source(config.evaluation.error_source)
    folds = folds_for(config, task, splits.seed)
    role = _role(config, task, splits, folds)
    asked = [[role.request(imagined_mistake(task, row, splits.seed, folds), 0, 0) for row in _longest(sources)]]
    if config.gates.relabel.votes and not config.judge:
        asked.append(first_votes(config, task, splits))
    if not config.examines_teacher:
        return asked
    exam = blind_exam(config, task, splits.seed)
    # Of the seeds: dev and test rows are for the exams themselves.
    return [*asked, [exam.request(row.id, row.input) for row in _longest(splits.seed)]]


def first_votes(config: Config, task: Task, splits: Splits) -> list[Request]:
    """Votes on the longest seeds: new rows are not there yet."""
    relabel = config.gates.relabel
    shown = shown_blind(task, splits.seed, relabel.examples)
    judge = Judge(task, shown, settings=relabel, asked=config.voter, run_seed=config.run.seed)
    return [judge.request(row.input, 0) for row in _longest(splits.seed)]


def first_of_every_row(config: Config, task: Task, splits: Splits) -> Iterator[Request]:
    """What is asked first about each row that can be wrong, if it is in the first round; the student's answer is made up."""
    folds = folds_for(config, task, splits.seed)
    role = _role(config, task, splits, folds)
    for row in splits.error_source(config.evaluation.error_source):
        yield role.request(imagined_mistake(task, row, splits.seed, folds), 0, 0)


def _role(config: Config, task: Task, splits: Splits, folds: Mapping[str, int]) -> Augment:
    return Augment(
        task, Peers(task, splits.seed, folds), teacher=config.teacher, settings=asking(config), iteration=0,
        run_seed=config.run.seed,
    )  # fmt: skip


def _longest(rows: Sequence[Example]) -> list[Example]:
    return nlargest(_TRIED, rows, key=lambda row: len(row.input) + len(row.output))


def imagined_mistake(task: Task, row: Example, rows: Sequence[Example], folds: Mapping[str, int]) -> Graded:
    """As if the student had said the answer of another of `rows`. `folds`: row id -> fold, where there are any."""
    other = next((seed.output for seed in rows if seed.output != row.output), row.output)
    said = task.completion(other)
    return Graded(example=row, completion=said, answer=task.answer(said), correct=False, fold=folds.get(row.id))
