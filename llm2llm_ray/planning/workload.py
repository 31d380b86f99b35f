"""How much a run has to compute, stage by stage, told from its config and rows before anything runs. Pure; knows no seconds.

Token counts are characters / 4: the core has no tokenizer. What cannot be known before (how many rows the student gets wrong)
is a `Shares`, and a workload is worth what its shares are worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from llm2llm_ray.config import BudgetConfig, Config
from llm2llm_ray.config.schedule import TEACHER_SHOTS, asking, num_iterations, rows_per_call, total_updates, updates_in_all
from llm2llm_ray.preflight import Checked
from llm2llm_ray.rounds.augmenting import Augment, Peers
from llm2llm_ray.rounds.first_requests import imagined_mistake
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Prompt

CHARACTERS_PER_TOKEN = 4
_FORM = 10
"""Tokens around each row of a chat's reply: braces, quotes, names of fields."""
_SAMPLED = 64
"""Rows whose teacher prompts are built to measure their length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What a run turns out to be. Example: Shares(wrong=0.3, accepted=0.8, attempts=1.2)"""

    wrong: float
    """Of the evaluated rows, in every iteration."""
    accepted: float
    """New rows per row asked for."""
    attempts: float
    """How often a call is made until its reply has a usable row."""


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
    shots: float
    """A prompt of the teacher's exam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """One stage's work. Example: Amount(group="iteration 0", name="train", rows=32, updates=12, trained_tokens=2400)"""

    group: str
    name: str
    rows: float = 0
    """Trained on, evaluated, or committed."""
    updates: int = 0
    trained_tokens: float = 0
    answers: float = 0
    """Of the student."""
    student_prompt_tokens: float = 0
    student_tokens: float = 0
    calls: float = 0
    """To the teacher."""
    teacher_prompt_tokens: float = 0
    teacher_tokens: float = 0
    cached_tokens: float = 0
    """Of the teacher's prompts: the same in each, so an engine's prefix cache computes them once."""

    @property
    def tokens(self) -> float:
        return (
            self.trained_tokens
            + self.student_prompt_tokens
            + self.student_tokens
            + self.teacher_prompt_tokens
            + self.teacher_tokens
        )


def tokens_of(text: str) -> float:
    return len(text) / CHARACTERS_PER_TOKEN


def lengths(config: Config, checked: Checked) -> Lengths:
    task, splits = checked.task, checked.splits
    answer = fmean(min(_completion_tokens(task, row), config.evaluation.max_tokens) for row in splits.seed)
    wanted = reply_tokens(config, checked)
    sample = splits.seed[:: max(1, len(splits.seed) // _SAMPLED)]
    return Lengths(
        trained=fmean(_student_tokens(task, row) + _completion_tokens(task, row) for row in splits.seed),
        prompt=_mean(_student_tokens(task, row) for row in _error_rows(config, checked)),
        test_prompt=_mean(_student_tokens(task, row) for row in splits.test),
        answer=answer,
        asked=_mean(_asked_tokens(config, checked, sample)),
        written=min(wanted, config.teacher.max_tokens),
        shots=_mean(_prompt_tokens(task.shots_prompt(row.input, splits.seed[:TEACHER_SHOTS])) for row in splits.test[:_SAMPLED]),
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


def _error_rows(config: Config, checked: Checked) -> Sequence[Example]:
    return checked.splits.error_source(config.evaluation.error_source)


def _asked_tokens(config: Config, checked: Checked, sample: Sequence[Example]) -> Iterator[float]:
    """Real prompts, as if the student had given each sampled row another's answer."""
    role = _teacher(config, checked)
    for row in sample:
        mistake = imagined_mistake(checked.task, row, checked.splits.seed)
        yield _prompt_tokens(role.request(mistake, 0, 0).prompt)


def _teacher(config: Config, checked: Checked) -> Augment:
    return Augment(
        checked.task, Peers(checked.task, checked.splits.seed), teacher=config.teacher, settings=asking(config), iteration=0,
        run_seed=config.run.seed,
    )  # fmt: skip


def rows_seen(rows: int, batch: int, updates: int) -> int:
    """Rows in that many updates."""
    epochs, more = divmod(updates, math.ceil(rows / batch))
    return epochs * rows + min(more * batch, rows)


def workload(config: Config, checked: Checked, measures: Lengths, shares: Shares) -> list[Amount]:
    """Every stage of the run in order: each iteration's train, round and commit, then the exams and the baseline."""
    return list(_Workload(config, checked, measures, shares).stages())


@dataclass
class _Workload:
    config: Config
    checked: Checked
    lengths: Lengths
    shares: Shares
    calls: float = field(default=0, init=False)
    trainings: list[int] = field(default_factory=list, init=False)
    """Updates of each student's own."""

    def stages(self) -> Iterator[Amount]:
        rows = float(len(self.checked.splits.seed))
        count, settings = num_iterations(self.config), self.config.augmentation
        wanted = asking(self.config)
        calls = len(rows_per_call(wanted.per_wrong, wanted.per_call))
        spent = False
        for i in range(count):
            train = self._train(f"iteration {i}", "train", rows)
            self.trainings.append(train.updates)
            yield train
            evaluated = rows if settings.augment_augmented else float(len(_error_rows(self.config, self.checked)))
            weak = 0.0 if spent or i == count - 1 else evaluated * self.shares.wrong
            round_ = self._round(f"iteration {i}", evaluated, weak * calls)
            yield round_
            if spent or i == count - 1:
                break
            spent = round_.calls < weak * calls * self.shares.attempts
            grown = round_.calls / self.shares.attempts * wanted.per_wrong / calls * self.shares.accepted
            rows += grown
            yield Amount(group=f"iteration {i}", name="commit", rows=grown)
        if self.config.evaluation.test and self.checked.splits.test:
            yield from self._tests()

    def _train(self, group: str, name: str, rows: float, updates: int | None = None) -> Amount:
        student, whole = self.config.student, max(1, round(rows))
        updates = total_updates(whole, student.global_batch_size, student.epochs, updates or student.updates)
        seen = rows_seen(whole, student.global_batch_size, updates)
        return Amount(group=group, name=name, rows=rows, updates=updates, trained_tokens=seen * self.lengths.trained)

    def _round(self, group: str, evaluated: float, wanted: float) -> Amount:
        calls = min(wanted * self.shares.attempts, self._left())
        self.calls += calls
        return replace(
            self._solved(group, evaluated),
            calls=calls,
            teacher_prompt_tokens=calls * self.lengths.asked,
            teacher_tokens=calls * self.lengths.written,
        )

    def _solved(self, group: str, rows: float) -> Amount:
        """What the student is asked in a round, by `evaluation.judge_by`."""
        evaluation, measured = self.config.evaluation, self.lengths
        each = evaluation.samples if evaluation.judge_by == "pass_rate" else 1
        asked = self._answers(group, "round", rows * each, measured.prompt, measured.answer)
        weighed = rows * (measured.prompt + measured.answer) if evaluation.judge_by == "gold_loss" else 0.0
        return replace(asked, rows=rows, student_prompt_tokens=asked.student_prompt_tokens + weighed)

    def _left(self) -> float:
        """Teacher calls that the budget still pays for."""
        budget, each = self.config.teacher.budget, self.lengths.asked + self.lengths.written
        limits = [math.inf if budget.calls is None else budget.calls]
        if budget.tokens is not None:
            limits.append(budget.tokens / each)
        if budget.money is not None:
            limits.append(budget.money / money(budget, self.lengths.asked, self.lengths.written))
        return max(0.0, min(limits) - self.calls)

    def _answers(self, group: str, name: str, rows: float, prompt: float, answer: float) -> Amount:
        return Amount(
            group=group, name=name, rows=rows, answers=rows, student_prompt_tokens=rows * prompt, student_tokens=rows * answer
        )

    def _tests(self) -> Iterator[Amount]:
        evaluation, rows = self.config.evaluation, float(len(self.checked.splits.test))
        measured = self.lengths
        if evaluation.recorded_answers is None:  # it knows no end of text yet and writes until it is cut
            yield self._answers("test", "exam (untrained)", rows, measured.test_prompt, evaluation.max_tokens)
        yield self._answers("test", "exam (first)", rows, measured.test_prompt, measured.answer)
        if num_iterations(self.config) > 1:
            yield self._answers("test", "exam (kept)", rows, measured.test_prompt, measured.answer)
        if evaluation.matched_baseline:
            matched = updates_in_all(self.trainings, self.config.student.start_from)
            yield self._train("test", "baseline", len(self.checked.splits.seed), matched)
            yield self._answers("test", "exam (baseline)", rows, measured.test_prompt, measured.answer)
        if evaluation.teacher_on_test:
            yield Amount(
                group="test", name="exam (teacher)", rows=rows, calls=rows, teacher_prompt_tokens=rows * measured.shots,
                teacher_tokens=rows * measured.answer,
                cached_tokens=max(0.0, rows - 1) * (measured.shots - measured.test_prompt),
            )  # fmt: skip


def money(budget: BudgetConfig, prompt_tokens: float, tokens: float) -> float:
    """In the currency of the configured prices."""
    return (
        prompt_tokens * budget.price_per_million_prompt_tokens + tokens * budget.price_per_million_completion_tokens
    ) / 1_000_000
