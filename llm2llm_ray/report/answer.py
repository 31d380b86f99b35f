"""The top of the report: did it help against the matched baseline, by how much, and at what cost.

Claims nothing that the exams do not carry: without a matched baseline, or before the exams, it says that there is no answer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llm2llm_ray.accuracy import unanswered
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.history.summary import WHO, sentence
from llm2llm_ray.report.wording import ABSENT, count, duration, per
from llm2llm_ray.timing.timeline import Timeline

Tone = Literal["better", "worse", "open"]

_BASELINE = "kept - baseline"
_NAMES = {_BASELINE: "Kept student − matched baseline", "kept - first": "Kept student − first student"}
_NOTES = {
    _BASELINE: "the seeds alone, the same number of updates: the fair comparison",
    "kept - first": "not fair: the kept student also took more updates",
}
_TONES: dict[str, Tone] = {"better": "better", "worse": "worse", "not shown to differ": "open"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A difference in accuracy with its 95 % interval; places are percent of an axis from -reach to +reach."""

    name: str
    note: str
    value: float
    low: float
    high: float
    left: float
    width: float
    dot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    headline: str
    tone: Tone
    sentence: str
    gaps: tuple[Gap, ...]
    reach: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One line of the test accuracies; low, high and value are shares of 1."""

    name: str
    main: bool
    value: float
    low: float
    high: float
    hits: int
    total: int
    unanswered: int
    updates: int | None
    truncated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    name: str
    value: str
    note: str = ""


def answer(run: RunRecord) -> Answer:
    exams = run.exams
    if exams is None:
        headline, told = _no_exams(run)
        return Answer(headline=headline, tone="open", sentence=told, gaps=(), reach=0.0)
    found = {name: d for name, d in exams["differences"].items() if math.isfinite(d["value"])}
    reach = _reach([abs(d[end]) for d in found.values() for end in ("low", "high")])
    gaps = tuple(_gap(name, _note(name, exams), found[name], reach) for name in (_BASELINE, "kept - first") if name in found)
    if _BASELINE in found:  # "It helped: +3.1 points …"
        headline, _, told = sentence(exams).partition(": ")
        told = re.sub(r"-(?=\d)", "−", told)  # as the numbers beside it are written
        return Answer(headline=headline, tone=_TONES[found[_BASELINE]["verdict"]], sentence=told, gaps=gaps, reach=reach)
    empty = _BASELINE in exams["differences"]
    told = "The test set had no rows, so this run cannot say whether the loop helped." if empty else sentence(exams)
    return Answer(headline="No answer", tone="open", sentence=told, gaps=gaps, reach=reach)


def _no_exams(run: RunRecord) -> tuple[str, str]:
    if run.report is not None:
        return (
            "No answer",
            "The test set was not read (evaluation.test is off, or there are no test rows), so this run cannot say whether the "
            "loop helped.",
        )
    return "No answer yet", "The test set is read once, at the end of a run; this run has not come that far."


def _note(name: str, exams: Mapping[str, Any]) -> str:
    first, kept = (exams["accuracy"].get(who, {}).get("updates") for who in ("first", "kept"))
    return _NOTES[_BASELINE if first == kept is not None else name]


def _gap(name: str, note: str, found: dict[str, Any], reach: float) -> Gap:
    def place(value: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, value / reach))

    low, high = place(found["low"]), place(found["high"])
    return Gap(
        name=_NAMES[name], note=note, value=found["value"], low=found["low"], high=found["high"],
        left=low, width=high - low, dot=place(found["value"]),
    )  # fmt: skip


def _reach(values: list[float]) -> float:
    """The half-length of the axis: the smallest round number that holds all values."""
    most = max(values, default=0.0)
    return next((step for step in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75) if step >= most), 1.0)


def scores(run: RunRecord) -> list[Score]:
    """Test accuracies in the order in which they are read; empty before the exams."""
    accuracy = run.exams["accuracy"] if run.exams else {}
    return [
        Score(
            name=label, main=who in ("kept", "baseline"), value=told["value"], low=told["low"], high=told["high"],
            hits=told["hits"], total=told["total"], unanswered=unanswered(told),
            updates=told.get("updates"), truncated=told["truncated"],
        )
        for who, label in WHO.items()
        if (told := accuracy.get(who))
    ]  # fmt: skip


def facts(run: RunRecord, timeline: Timeline) -> list[Fact]:
    """What it took."""
    spent, sessions = _spent(run), len(timeline.sessions)
    turns = run.iterations
    accepted = sum(turn["round"]["accepted"] for turn in turns)
    calls, tokens = spent["asked"], spent["teacher_prompt_tokens"] + spent["teacher_completion_tokens"]
    found = [
        Fact(
            name="Wall clock", value=duration(timeline.wall_seconds),
            note=f"{sessions} starts, pauses left out" if sessions > 1 else "",
        ),
        Fact(name="Rows", value=_growth(turns), note=f"{count(accepted)} accepted" if turns else "no iteration finished"),
        Fact(name="Teacher calls", value=count(calls), note="" if calls else "the teacher was never asked"),
        Fact(
            name="Teacher tokens", value=count(tokens),
            note=f"{count(spent['teacher_prompt_tokens'])} read, {count(spent['teacher_completion_tokens'])} written",
        ),
        Fact(name="Student tokens", value=count(spent["student_tokens"]), note="read and written in the rounds"),
        Fact(name="Exam tokens", value=count(spent["exam_tokens"]), note="read and written on the test set"),
        Fact(name="Tokens trained on", value=count(spent["trained_tokens"]), note="all trainings, the baseline's too"),
    ]  # fmt: skip
    if spent["judged"]:
        votes = spent["judge_prompt_tokens"] + spent["judge_completion_tokens"]
        found.append(Fact(name="Votes on new rows", value=count(spent["judged"]), note=f"{count(votes)} tokens"))
    money = _money(run, spent)
    if money is not None:
        found.append(Fact(name="Teacher price", value=count(money, 2), note="in the unit of the prices in teacher.budget"))
    seconds_each = duration(per(spent["writing_s"], accepted))
    note = f"{count(per(calls, accepted), 1)} calls, {seconds_each} of rounds and commits" if accepted else "none was accepted"
    found.append(Fact(name="Teacher tokens per accepted row", value=count(per(tokens, accepted)), note=note))
    return found


def _growth(turns: list[dict[str, Any]]) -> str:
    if not turns:
        return ABSENT
    first, last = turns[0]["dataset"], turns[-1]["grown"] or turns[-1]["dataset"]
    return f"{count(first['num_rows'])} → {count(last['num_rows'])}"


def _spent(run: RunRecord) -> Counter[str]:
    """Sums over every finished stage, also those of an earlier config: that is what was paid. `writing_s`: whole seconds of
    the rounds in which the teacher was asked, and of the commits."""
    total: Counter[str] = Counter()
    for stage in run.stages:
        result = stage["result"]
        if stage["name"] == "commit" or result.get("asked"):
            total["writing_s"] += round(stage["ended"] - stage["started"])
        if stage["name"] == "round":
            for name in ("asked", "teacher_prompt_tokens", "teacher_completion_tokens", "student_tokens"):
                total[name] += result[name]
            for name in ("judged", "judge_prompt_tokens", "judge_completion_tokens"):  # not there in runs of earlier versions
                total[name] += result.get(name, 0)
        elif stage["name"] == "exam":
            total["exam_tokens"] += result["student_tokens"]
        elif stage["name"] in ("train", "fold"):
            total["trained_tokens"] += int(result["metrics"].get("tokens") or 0)
    return total


def _money(run: RunRecord, spent: Mapping[str, int]) -> float | None:
    judge = run.config.get("judge") or run.config["teacher"]  # who votes
    names = ("price_per_million_prompt_tokens", "price_per_million_completion_tokens")
    prices = {
        who: [asked["budget"][name] for name in names] for who, asked in (("teacher", run.config["teacher"]), ("judge", judge))
    }
    if not any(map(any, prices.values())):
        return None
    paid = (
        read * spent[f"{who}_prompt_tokens"] + written * spent[f"{who}_completion_tokens"]
        for who, (read, written) in prices.items()
    )
    return float(sum(paid)) / 1e6
