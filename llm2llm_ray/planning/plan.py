"""What a run will need, told before it starts: resources, updates, calls, tokens, seconds and disk, with the assumptions said.

From the config and the checked rows alone, in about a second, without Ray or torch. Every amount is a range: `low` and `high`
are the same run with other shares of wrong answers, not bounds. Invariant: seconds come from measured rates or are not told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from llm2llm_ray.config import Config, StudentConfig
from llm2llm_ray.config.schedule import asking, num_folds, num_iterations
from llm2llm_ray.machine import Machine, free_gib, this_machine
from llm2llm_ray.planning.advice import advice
from llm2llm_ray.planning.lengths import Lengths, lengths
from llm2llm_ray.planning.model_size import parameters
from llm2llm_ray.planning.no_effect import no_effect
from llm2llm_ray.planning.rates import Rates, rates_for
from llm2llm_ray.planning.resources import Resource, resources
from llm2llm_ray.planning.votes import assumption, measured, price, vote_seconds
from llm2llm_ray.planning.workload import Amount, Shares, at_once, workload
from llm2llm_ray.preflight import Checked

LOW = Shares(wrong=0.1, accepted=0.5, attempts=1.0, contested=0.0)
EXPECTED = Shares(wrong=0.3, accepted=0.8, attempts=1.2)
"""Between what the demo's runs of 2026-11-22 showed (10, 4 and 12, 6 of 32 seeds wrong; every one got its row in one call) and
a harder task. `high` takes every configured attempt."""
_HIGH_WRONG = 0.8
_BYTES_PER_ANSWER = 2500
"""Of replies and round rows together: 734 replies took 1.7 MB in the demo run of 2026-11-22."""
_FLOAT32, _BFLOAT16 = 4, 2
_CHECKPOINT = {_FLOAT32: 12, _BFLOAT16: 14}
"""Bytes per parameter: weights and Adam's two moments in float32; bfloat16 keeps float32 weights beside its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Example: Range(low=3.0, expected=12.0, high=77.0)"""

    low: float
    expected: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, expected=self.expected + other.expected, high=self.high + other.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage of the run in its three versions."""

    group: str
    name: str
    low: Amount
    expected: Amount
    high: Amount
    seconds: Range | None
    """None where nothing was measured."""

    def range(self, of: Callable[[Amount], float]) -> Range:
        return Range(low=of(self.low), expected=of(self.expected), high=of(self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """GiB below the run folder; None where the model's size is not known."""

    students_gib: float | None
    checkpoints_gib: float | None
    """At the most, while a training runs; they are removed at its end."""
    rows_gib: float
    free_gib: float | None
    """None where the folder is not on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    run: str
    device: str | None
    """cpu or gpu; None when it depends on a cluster that is not looked at."""
    resources: tuple[Resource, ...]
    steps: tuple[Step, ...]
    around_seconds: Range | None
    """Start, engines and report."""
    disk: Disk
    money: Range | None
    rates: Rates | None
    assumptions: tuple[str, ...]
    advice: tuple[str, ...]
    """What keeps the student from learning, and what to change."""

    def total(self, of: Callable[[Amount], float]) -> Range:
        return sum((step.range(of) for step in self.steps), Range(low=0, expected=0, high=0))

    @property
    def seconds(self) -> Range | None:
        known = [step.seconds for step in self.steps if step.seconds is not None]
        if self.around_seconds is None or len(known) < len(self.steps):
            return None
        return sum(known, self.around_seconds)


def plan(
    config: Config, checked: Checked, *, rates: Callable[[Config, str], Rates | None] = rates_for, shares: Shares = EXPECTED
) -> Plan:
    """`rates` finds measured rates for a device; `shares` are the expected ones."""
    machine = this_machine()
    device = device_here(config, machine)
    found = measured(config, rates(config, device) if device else None)
    low, high = _around(shares, config.augmentation.attempts)
    measures = lengths(config, checked)
    versions = [workload(config, checked, measures, kind) for kind in (low, shares, high)]
    steps = [_step(config, found, amounts) for amounts in _aligned(versions)]
    made = sum((step.range(lambda a: a.answers + a.calls + a.votes) for step in steps), Range(low=0, expected=0, high=0))
    around = None if found is None else found.starting_s + found.engines_s + found.report_s
    return Plan(
        run=config.run.name,
        device=device,
        resources=tuple(resources(config, device)),
        steps=tuple(steps),
        around_seconds=None if around is None else Range(low=around, expected=around, high=around),
        disk=disk(
            config,
            device,
            answers=made.high,
            updates=max(step.high.updates for step in steps),
            trainings=sum(any(amount.updates for amount in (step.low, step.expected, step.high)) for step in steps),
        ),
        money=_money(config, steps),
        rates=found,
        assumptions=(*_assumptions(config, machine, device, found, measures, (low, shares, high)), *no_effect(config, checked)),
        advice=advice(config, checked, updates=steps[0].expected.updates, measures=measures),
    )


def _around(shares: Shares, attempts: int) -> tuple[Shares, Shares]:
    low = Shares(**{name: min(value, getattr(shares, name)) for name, value in asdict(LOW).items()})
    high = Shares(
        wrong=max(_HIGH_WRONG, shares.wrong), accepted=1.0, attempts=max(float(attempts), shares.attempts), contested=1.0
    )
    return low, high


def _aligned(versions: Sequence[Sequence[Amount]]) -> list[list[Amount]]:
    """The same stage of each version. A budget can end the versions that ask for more early: they do nothing there."""
    by_name = [{(amount.group, amount.name): amount for amount in version} for version in versions]
    return [
        [named.get((stage.group, stage.name), Amount(group=stage.group, name=stage.name)) for named in by_name]
        for stage in versions[0]
    ]


def _step(config: Config, rates: Rates | None, amounts: Sequence[Amount]) -> Step:
    low, expected, high = amounts
    seconds = None
    if rates is not None:
        a, b, c = (stage_seconds(config, rates, amount) for amount in amounts)
        seconds = Range(low=a, expected=b, high=c)
    return Step(group=low.group, name=low.name, low=low, expected=expected, high=high, seconds=seconds)


def device_here(config: Config, machine: Machine) -> str | None:
    """cpu or gpu, as launch will find it; None when a cluster decides that this machine does not see."""
    if config.cluster.device != "auto":
        return config.cluster.device
    if config.cluster.address or os.environ.get("RAY_ADDRESS"):
        return None
    return "gpu" if machine.gpus else "cpu"


def stage_seconds(config: Config, rates: Rates, amount: Amount) -> float:
    """Rounds: student and teacher one after the other. They overlap, but on one machine they share what computes."""
    if amount.updates:
        computing = amount.updates * rates.update_s + amount.trained_tokens / rates.train_tokens_per_s
        exports = 2 if amount.name == "train" and config.evaluation.snapshot_at is not None else 1
        return rates.train_start_s + computing + exports * rates.train_end_s
    if amount.name == "commit":
        return rates.commit_s
    if not amount.answers and not amount.calls:
        return 0.0
    seconds = rates.pipeline_start_s
    if config.evaluation.recorded_answers is None:
        seconds += rates.student.seconds(amount.student_prompt_tokens, amount.student_tokens)
    if config.teacher.kind == "serve" and rates.teacher is not None:
        seconds += rates.teacher.seconds(amount.teacher_prompt_tokens - amount.cached_tokens, amount.teacher_tokens)
    elif config.teacher.kind in ("recorded", "scripted"):
        seconds += amount.calls * config.teacher.latency_s / at_once(config.teacher)
    if amount.votes:
        seconds += vote_seconds(config, rates, amount)
    return seconds


def disk(config: Config, device: str | None, *, answers: float, updates: int, trainings: int | None = None) -> Disk:
    """Space for the students and their snapshots (all are kept), one checkpoint and the next one beside it, and rows and replies.
    `trainings` None: as many as there can be."""
    count = parameters(config.student.model)
    student, checkpoints = (None, None) if count is None else training_gib(config.student, device, count, updates)
    baseline = config.evaluation.test and config.evaluation.matched_baseline
    trained = trainings or num_iterations(config) * (1 + num_folds(config)) + baseline
    snapshots = 0 if config.evaluation.snapshot_at is None else num_iterations(config)
    here = "://" not in config.run.folder
    return Disk(
        students_gib=None if student is None else (trained + snapshots) * student,
        checkpoints_gib=checkpoints,
        rows_gib=answers * _BYTES_PER_ANSWER / 2**30,
        free_gib=free_gib(config.run.folder) if here else None,
    )


def training_gib(student: StudentConfig, device: str | None, parameters: int, updates: int | None) -> tuple[float, float]:
    """What one training leaves, and what its checkpoints take meanwhile. `updates` None: more than any interval."""
    bf16 = student.precision == "bf16" or (student.precision == "auto" and device == "gpu")
    width, every = _BFLOAT16 if bf16 else _FLOAT32, student.checkpoint_every_updates
    kept = 2 if (every is None or updates is None or every < updates) and student.method == "full" else 0
    return parameters * width / 2**30, kept * parameters * _CHECKPOINT[width] / 2**30


def _money(config: Config, steps: Sequence[Step]) -> Range | None:
    paid = (config.teacher.budget, config.voter.budget)
    if not any(budget.price_per_million_prompt_tokens or budget.price_per_million_completion_tokens for budget in paid):
        return None
    costs = (step.range(lambda amount: price(config, amount)) for step in steps)
    return sum(costs, Range(low=0, expected=0, high=0))


def _assumptions(
    config: Config,
    machine: Machine,
    device: str | None,
    rates: Rates | None,
    measures: Lengths,
    three: tuple[Shares, Shares, Shares],
) -> list[str]:
    low, shares, high = three
    told = [
        f"Of the evaluated rows {shares.wrong:.0%} are wrong in every iteration ({low.wrong:.0%} to {high.wrong:.0%}); a row "
        f"asked for gives {shares.accepted:.2f} new rows ({low.accepted:.2f} to {high.accepted:.2f}); a call{_for_rows(config)} "
        f"is made {shares.attempts:.1f} times ({low.attempts:.1f} to {high.attempts:.1f}) until a row is usable. Without a wrong "
        "row the run ends early.",
        f"A token is 4 characters (no tokenizer is loaded): {measures.trained:.0f} per training row, {measures.prompt:.0f} per "
        f"student prompt, {measures.asked:.0f} per teacher prompt, {measures.written:.0f} per teacher reply (rows as long as the "
        f"seeds, at most {config.teacher.max_tokens}).",
        *assumption(config, measures, three),
    ]
    if device is None:
        told.append("The device is the cluster's, which is not looked at: no measurement; seconds not estimated.")
    elif rates is None:
        told.append(f"On {device} with models of this size: no measurement; seconds not estimated.")
    else:
        told.append(f"Seconds: {rates.source}. Here: {machine.cores} cores of {machine.cpu}; nothing is scaled to it.")
        if config.teacher.kind == "openai":
            told.append("The teacher service's time is not known and not in the seconds.")
    if config.teacher.kind == "recorded":
        told.append(f"The teacher's replies are recorded ({config.teacher.model}): what is not in the file is not asked.")
    elif config.teacher.replies:
        told.append(f"Calls that {config.teacher.replies} has replies to are not made; here they are counted.")
    if config.student.updates == "auto":
        told.append(
            "student.updates=auto: the same number for every student until D outgrows it; as long as it does not, the first "
            "student is the matched baseline, and none is trained for it."
        )
    if config.student.method == "lora":
        told.append("Checkpoints of a LoRA adapter are not in the disk space.")
    return told


def _for_rows(config: Config) -> str:
    wanted = asking(config)
    return "" if wanted.per_call == 1 else f" for {wanted.per_call} rows ({wanted.per_wrong} are wanted for each wrong row)"
