"""What the result of a round, an exam and a commit depends on: the inputs that each one's key is made from.

Training's are `training_inputs` in runtime/training/trainer.py.

Invariant: what can change a stored row is in, and nothing else, or a larger `in_flight` would ask everything again. A field of
`augmentation` or `evaluation` is in unless it is named here as one that does not change rows, or does so through what is in.
What each field does is written down once more, by hand, in tests/unit/test_stage_keys.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llm2llm_ray.asking.answerer import Answerer, request_settings
from llm2llm_ray.config import AugmentationConfig, BudgetConfig, CapsConfig, Config
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.rounds.blind_exam import exam_tokens
from llm2llm_ray.rounds.folds import Fold
from llm2llm_ray.rounds.targeting import needs_all_rows
from llm2llm_ray.tasks.task import Task, identity
from llm2llm_ray.types import Example, Student

_COMMITTED = {"near_duplicate", "near_test", "rows_at_most"}
"""Settings of `augmentation` that the commit gates go by; all others are the teacher's part of a round."""
_AS_OTHER_INPUTS = {"one_shot", "augment_augmented", "require_better_teacher"}
"""Ablations, there as `per_wrong` and as the rows evaluated; and what says whether a round is asked for at all."""
_TARGETS = {"targets", "weakest_share", "random_share"}
"""There only where they are in force."""
_NOT_OF_ROWS = {
    "error_source", "recorded_answers", "in_flight", "rows_per_block", "test", "check_teacher", "teacher_on_test",
    "matched_baseline", "engine", "max_unanswered", "early_at", "folds", "structured", "judge_by", "samples",
    "sample_temperature", "weak_below",
}  # fmt: skip
"""Settings of `evaluation` that are there as the rows or as who answers, order the work, or say which exams are held
and when a stage counts; and from `structured` on those that are there only where they are in force: without them an answer is
what it was before there were such settings."""
_PRICES = {"price_per_million_prompt_tokens", "price_per_million_completion_tokens"}


def solved(
    config: Config, task: Task, answerer: Answerer, *, student: str, rows: str, iteration: int, in_round: bool
) -> dict[str, Any]:
    """A student's answers to a version's rows. `student`: sha of the one examined, whoever answers in its place."""
    held = config.evaluation.student_held
    weak = _weak(config) if in_round else {}
    return {"model": student, "rows": rows, "iteration": iteration, **weak, **_exam(config, task, answerer, held=held)}


def cross_fitted(inputs: Mapping[str, Any], *, student: str, students: Sequence[tuple[Fold, Student]]) -> dict[str, Any]:
    """`inputs` of the first fold's student as those of all folds' students. `student`: sha of the M^i whose errors stand for."""
    return {**inputs, "model": student, "cross_fit": [{"seeds": fold.id, "model": of.sha} for fold, of in students]}


def _weak(config: Config) -> dict[str, Any]:
    """By what a round finds weak rows, where that is not a greedy answer."""
    evaluation = config.evaluation
    if evaluation.judge_by == "pass_rate":
        settings = evaluation.model_dump(mode="json", include={"judge_by", "samples", "sample_temperature", "weak_below"})
        return {"weak": settings | {"seed": config.run.seed}}
    return {} if evaluation.judge_by == "greedy" else {"weak": {"judge_by": evaluation.judge_by}}


def taught(config: Config, settings: AugmentationConfig, answerer: Answerer, *, peers: str, replies: str = "") -> dict[str, Any]:
    """The teacher's part of a round, beside `solved`. `settings` are as the role has them (`schedule.asking`), `peers` is the id
    of the seeds.

    `replies`: sha of `teacher.replies`. It changes no reply, and so no reply's key, but how far a budget reaches.
    """
    unused = set() if settings.show_wrong_answer else {"examples_of_confused"}
    unused |= set() if settings.copies else {"copies"}
    return {
        **_given(replies),
        "teacher": answerer.described(),
        "request": request_settings(config.teacher),
        "augmentation": settings.model_dump(mode="json", exclude=_COMMITTED | _AS_OTHER_INPUTS | _TARGETS | unused),
        **_targets(settings),
        "peers": peers,
        "seed": config.run.seed,
        "budget": _limits(config.teacher.budget),
    }


def _targets(settings: AugmentationConfig) -> dict[str, Any]:
    """Which rows are asked about, where that is not simply the wrong ones."""
    if not needs_all_rows(settings):
        return {}
    unused = {"weakest_share"} if settings.targets != "weakest" else set()
    return {"targets": settings.model_dump(mode="json", include=_TARGETS - unused)}


def solved_by_teacher(
    config: Config, task: Task, answerer: Answerer, *, rows: str, examples: Sequence[Example], replies: str = ""
) -> dict[str, Any]:
    """The teacher's own exam. `examples`: what it is shown."""
    return {
        **_given(replies),
        "rows": rows,
        "shown_blind": fingerprint([_shown(row) for row in examples]),
        "request": {
            name: value for name, value in request_settings(config.teacher).items() if name not in ("temperature", "top_p")
        }
        | {"max_tokens": exam_tokens(config)},
        "budget": _limits(config.teacher.budget),
        **({"structured": True} if teacher_held(config) else {}),
        "answerer": answerer.described(),
        "task": dict(identity(task)),
    }


def teacher_held(config: Config) -> bool:
    """Whether the requests of the teacher's exam carry choices: an engine of ours can be held to them, a service cannot."""
    return config.evaluation.structured and config.teacher.kind == "serve"


def _shown(row: Example) -> dict[str, Any]:
    """Without its weight, which is for training."""
    return {name: value for name, value in asdict(row).items() if name != "weight"}


def judged(config: Config, answerer: Answerer, examples: Sequence[Example]) -> dict[str, Any]:
    """The judge's part of a round, beside `taught`; none where nobody votes. `answerer`: who votes, `examples`: what is shown."""
    relabel, asked = config.gates.relabel, config.voter
    if not relabel.votes:
        return {}
    unused = {"needed"} | (set() if relabel.on_doubt == "weight" else {"weight"})
    return {
        "judge": answerer.described(),
        "relabel": relabel.model_dump(mode="json", exclude=unused)
        | {"needed": relabel.least, "max_tokens": relabel.max_tokens or asked.max_tokens},
        "vote": {name: value for name, value in request_settings(asked).items() if name not in ("temperature", "max_tokens")},
        "shown_blind": fingerprint([_shown(row) for row in examples]),
        "judge_budget": _limits(asked.budget),
    }


def committed(
    settings: AugmentationConfig, caps: CapsConfig, *, round_key: str, dataset: str, held_out: Sequence[str]
) -> dict[str, Any]:
    """What a round adds to `dataset`. `held_out`: ids of the dev and test versions; other rows to keep out admit others."""
    return {
        "round": round_key,
        "dataset": dataset,
        "held_out": list(held_out),
        **settings.model_dump(mode="json", include=_COMMITTED, exclude_none=True),
        **caps.model_dump(mode="json", exclude_none=True),
    }


def _exam(config: Config, task: Task, answerer: Answerer, *, held: bool) -> dict[str, Any]:
    return {
        **({"structured": True} if held else {}),
        "answerer": answerer.described(),
        "task": dict(identity(task)),
        "evaluation": config.evaluation.model_dump(mode="json", exclude=_NOT_OF_ROWS),
    }


def _given(replies: str) -> Mapping[str, str]:
    return {"replies": replies} if replies else {}


def _limits(budget: BudgetConfig) -> Mapping[str, Any]:
    """A raised limit goes on with a round that ran out of it; prices count where money is limited."""
    return budget.model_dump(mode="json", exclude_none=True, exclude=set() if budget.money else _PRICES)
