"""How much a run has to compute, stage by stage, told from its config and rows before anything runs. Pure; knows no seconds.

What cannot be known before (how many rows the student gets wrong) is a `Shares`; a workload is worth what its shares are worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llm2llm_ray.config import BudgetConfig, Config, TeacherConfig
from llm2llm_ray.config.schedule import (
    asking,
    fixed_updates,
    num_folds,
    num_iterations,
    rows_per_call,
    total_updates,
    updates_in_all,
    votes_each,
)
from llm2llm_ray.planning.lengths import Lengths, error_rows
from llm2llm_ray.preflight import Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What a run turns out to be. Example: Shares(wrong=0.3, accepted=0.8, attempts=1.2)"""

    wrong: float
    """Of the evaluated rows, in every iteration."""
    accepted: float
    """New rows per row asked for."""
    attempts: float
    """How often a call is made until its reply has a usable row."""
    contested: float = 0.25
    """Of the votes that a row could have beyond those that confirm it (`gates.relabel`), the share that is asked for."""


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
    votes: float = 0
    """Calls to whoever votes on new rows."""
    vote_prompt_tokens: float = 0
    vote_tokens: float = 0
    cached_vote_tokens: float = 0

    @property
    def tokens(self) -> float:
        return (
            self.trained_tokens
            + self.student_prompt_tokens
            + self.student_tokens
            + self.teacher_prompt_tokens
            + self.teacher_tokens
            + self.vote_prompt_tokens
            + self.vote_tokens
        )


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
            yield from self._on_dev(i, last=spent or i == count - 1)
            for fold in range(num_folds(self.config)):
                left = 1 - 1 / self.config.evaluation.folds
                yield self._train(f"iteration {i}", f"fold {fold + 1}", rows * left, seeds=len(self.checked.splits.seed) * left)
            evaluated = rows if settings.augment_augmented else float(len(error_rows(self.config, self.checked)))
            weak = 0.0 if spent or i == count - 1 else self._asked_about(evaluated)
            round_ = self._round(f"iteration {i}", evaluated, weak * calls)
            yield round_
            if spent or i == count - 1:
                break
            spent = round_.calls < weak * calls * self.shares.attempts
            grown = round_.calls / self.shares.attempts * wanted.per_wrong / calls * self.shares.accepted
            at_most = settings.of_round(i).rows_at_most
            grown = min(grown, at_most) if isinstance(at_most, int) else grown
            rows += grown
            yield Amount(group=f"iteration {i}", name="commit", rows=grown)
        if self.config.evaluation.test and self.checked.splits.test:
            yield from self._tests()

    def _asked_about(self, evaluated: float) -> float:
        """Rows, as rounds/targeting.py chooses them."""
        settings = self.config.augmentation
        aimed = {"weakest": settings.weakest_share, "all": 1.0}.get(settings.targets, self.shares.wrong)
        return evaluated * min(1.0, aimed / (1 - settings.random_share))

    def _train(self, group: str, name: str, rows: float, updates: int | None = None, seeds: float | None = None) -> Amount:
        """`seeds`: of D^0 that are trained on; None: all."""
        student, whole = self.config.student, max(1, round(rows))
        batch, of = student.global_batch_size, round(len(self.checked.splits.seed) if seeds is None else seeds)
        updates = updates or fixed_updates(student.updates, seeds=of, rows=whole, global_batch_size=batch)
        updates = total_updates(whole, batch, student.epochs, updates)
        seen = rows_seen(whole, batch, updates)
        return Amount(group=group, name=name, rows=rows, updates=updates, trained_tokens=seen * self.lengths.trained)

    def _round(self, group: str, evaluated: float, wanted: float) -> Amount:
        calls = min(wanted * self.shares.attempts, self._left())
        self.calls += calls
        votes, measured = calls * self._votes_per_call, self.lengths
        return replace(
            self._solved(group, evaluated),
            calls=calls,
            teacher_prompt_tokens=calls * measured.asked,
            teacher_tokens=calls * measured.written,
            votes=votes,
            vote_prompt_tokens=votes * measured.vote_prompt,
            vote_tokens=votes * measured.vote,
            cached_vote_tokens=max(0.0, votes - 1) * (measured.vote_prompt - measured.vote_text),
        )

    @property
    def _votes_per_call(self) -> float:
        """As if every row asked for in a reply that is used were voted on."""
        wanted = asking(self.config)
        rows = wanted.per_wrong / len(rows_per_call(wanted.per_wrong, wanted.per_call))
        return votes_each(self.config, self.shares.contested) * rows / self.shares.attempts

    def _solved(self, group: str, rows: float) -> Amount:
        """What the student is asked in a round, by `evaluation.judge_by`."""
        evaluation, measured = self.config.evaluation, self.lengths
        each = evaluation.samples if evaluation.judge_by == "pass_rate" else 1
        asked = self._answers(group, "round", rows * each, measured.prompt, measured.answer)
        weighed = rows * (measured.prompt + measured.answer) if evaluation.judge_by == "gold_loss" else 0.0
        return replace(asked, rows=rows, student_prompt_tokens=asked.student_prompt_tokens + weighed)

    def _left(self) -> float:
        """Teacher calls that the budget still pays for, with the votes on what they bring where the teacher votes itself."""
        budget, measured = self.config.teacher.budget, self.lengths
        votes = 0.0 if self.config.judge_apart else self._votes_per_call
        read, written = measured.asked + votes * measured.vote_prompt, measured.written + votes * measured.vote
        limits = [math.inf if budget.calls is None else budget.calls / (1 + votes)]
        if budget.tokens is not None:
            limits.append(budget.tokens / (read + written))
        if budget.money is not None:
            limits.append(budget.money / money(budget, read, written))
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
            if matched == self.trainings[0]:  # the first student is the baseline
                yield from (Amount(group="test", name=name) for name in ("baseline", "exam (baseline)"))
            else:
                yield self._train("test", "baseline", len(self.checked.splits.seed), matched)
                yield self._answers("test", "exam (baseline)", rows, measured.test_prompt, measured.answer)
        if evaluation.teacher_on_test:
            yield self._teachers_answers("test", "exam (teacher)", rows)

    def _on_dev(self, iteration: int, *, last: bool) -> Iterator[Amount]:
        """What is asked of the dev rows once a student is trained: of it, and of the teacher before it is paid for rows."""
        config, rows, group = self.config, float(len(self.checked.splits.dev)), f"iteration {iteration}"
        checks = config.checks_teacher and iteration == 0 and not last
        if rows and (checks or config.run.keep == "best" or (config.run.patience is not None and not last)):
            prompt, answer = self.lengths.test_prompt or self.lengths.prompt, self.lengths.answer
            yield self._answers(group, f"exam (student {iteration + 1} on dev)", rows, prompt, answer)
        if rows and checks:
            yield self._teachers_answers(group, "exam (teacher on dev)", rows)

    def _teachers_answers(self, group: str, name: str, rows: float) -> Amount:
        measured = self.lengths
        return Amount(
            group=group, name=name, rows=rows, calls=rows, teacher_prompt_tokens=rows * measured.exam_prompt,
            teacher_tokens=rows * measured.answer,
            cached_tokens=max(0.0, rows - 1) * max(0.0, measured.exam_prompt - measured.test_prompt),
        )  # fmt: skip


def at_once(asked: TeacherConfig) -> int:
    """Replies that are being given at the same time, where each takes `latency_s`."""
    slots = asked.engine.replicas * asked.engine.max_num_seqs
    return min(slots, asked.in_flight or slots) if asked.kind == "recorded" else asked.in_flight or 64


def money(budget: BudgetConfig, prompt_tokens: float, tokens: float) -> float:
    """In the currency of the configured prices."""
    return (
        prompt_tokens * budget.price_per_million_prompt_tokens + tokens * budget.price_per_million_completion_tokens
    ) / 1_000_000
