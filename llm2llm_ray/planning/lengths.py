"""How long this task's texts are: mean tokens of what is trained on, asked and answered, measured on real rows and prompts.

A token is 4 characters: the core has no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import asking
from llm2llm_ray.preflight import Checked
from llm2llm_ray.rounds.augmenting import Augment, Peers
from llm2llm_ray.rounds.blind_exam import blind_exam, shown_blind
from llm2llm_ray.rounds.first_requests import imagined_mistake
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Prompt

CHARACTERS_PER_TOKEN = 4
_FORM = 10
"""Tokens around each row of a chat's reply: braces, quotes, names of fields."""
_SAMPLED = 64
"""Rows whose teacher prompts are built to measure their length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean tokens of this task's texts."""

    trained: float
    """Prompt, completion and end of text of a seed row; new rows are taken to be as long."""
    prompt: float
    """A student prompt on the rows that errors come from."""
    test_prompt: float
    answer: float
    """A completion as the gold rows have it, at most evaluation.max_tokens."""
    asked: float
    """A teacher prompt."""
    written: float
    """A teacher reply: `per_call` inputs and outputs as long as the seeds', at most teacher.max_tokens."""
    exam_prompt: float
    """A prompt of the teacher's exam."""
    vote_prompt: float
    """A vote on a row as long as a seed; 0 where nobody votes."""
    vote_text: float
    """Of that, what is another one for each row."""
    vote: float
    """A vote's answer: as the gold rows have it, at most what `gates.relabel` allows."""


def tokens_of(text: str) -> float:
    return len(text) / CHARACTERS_PER_TOKEN


def lengths(config: Config, checked: Checked) -> Lengths:
    task, splits = checked.task, checked.splits
    answer = fmean(min(_completion_tokens(task, row), config.evaluation.max_tokens) for row in splits.seed)
    wanted = reply_tokens(config, checked)
    sample = splits.seed[:: max(1, len(splits.seed) // _SAMPLED)]
    votes = list(_vote_tokens(config, checked, sample))
    most = config.gates.relabel.max_tokens or config.voter.max_tokens
    exam, examined = blind_exam(config, task, splits.seed), (splits.test or splits.dev)[:_SAMPLED]
    return Lengths(
        vote_prompt=_mean(votes),
        vote_text=_mean(tokens_of(row.input) for row in sample),
        vote=fmean(min(_completion_tokens(task, row), most) for row in splits.seed),
        trained=fmean(_student_tokens(task, row) + _completion_tokens(task, row) for row in splits.seed),
        prompt=_mean(_student_tokens(task, row) for row in error_rows(config, checked)),
        test_prompt=_mean(_student_tokens(task, row) for row in splits.test),
        answer=answer,
        asked=_mean(_asked_tokens(config, checked, sample)),
        written=min(wanted, config.teacher.max_tokens),
        exam_prompt=_mean(_prompt_tokens(exam.request(row.id, row.input).prompt) for row in examined),
    )


def reply_tokens(config: Config, checked: Checked) -> float:
    """Of a teacher reply with all rows of a call, each as long as the seeds are on average; teacher.max_tokens may be less."""
    form = _FORM if config.teacher.style == "chat" else 0
    return asking(config).per_call * fmean(tokens_of(row.input) + tokens_of(row.output) + form for row in checked.splits.seed)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fmean(found) if found else 0.0


def _student_tokens(task: Task, row: Example) -> float:
    return tokens_of(task.student_prompt(row.input))


def _completion_tokens(task: Task, row: Example) -> float:
    return tokens_of(task.completion(row.output)) + 1


def _prompt_tokens(prompt: Prompt) -> float:
    return tokens_of(prompt.text) + sum(tokens_of(message.content) for message in prompt.messages)


def error_rows(config: Config, checked: Checked) -> Sequence[Example]:
    return checked.splits.error_source(config.evaluation.error_source)


def _asked_tokens(config: Config, checked: Checked, sample: Sequence[Example]) -> Iterator[float]:
    """Real prompts, as if the student had given each sampled row another's answer."""
    role = _teacher(config, checked)
    for row in sample:
        mistake = imagined_mistake(checked.task, row, checked.splits.seed, checked.folds)
        yield _prompt_tokens(role.request(mistake, 0, 0).prompt)


def _teacher(config: Config, checked: Checked) -> Augment:
    return Augment(
        checked.task, Peers(checked.task, checked.splits.seed, checked.folds), teacher=config.teacher, settings=asking(config),
        iteration=0, run_seed=config.run.seed,
    )  # fmt: skip


def _vote_tokens(config: Config, checked: Checked, sample: Sequence[Example]) -> Iterator[float]:
    relabel = config.gates.relabel
    if relabel.votes:
        shown = shown_blind(checked.task, checked.splits.seed, relabel.examples)
        for row in sample:
            yield _prompt_tokens(checked.task.judge_prompt(row.input, shown, style=config.voter.style))
