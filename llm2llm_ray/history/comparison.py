"""What two runs differ in: settings, accuracies with their intervals, rows, tokens, seconds. Read from their records."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm_ray.accuracy import Difference, grade, paired_difference, unanswered
from llm2llm_ray.history.record import RunRecord

_NAMES = {"run.name", "run.folder"}
"""Where a run is kept, not what it does."""
_PASSWORD = re.compile(r"://[^/@\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing seen in both runs; None where a run has it not. Example: Line(name="rows accepted", ours="14", theirs=None)"""

    name: str
    ours: str | None
    theirs: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    settings: tuple[Line, ...]
    """Fields of the resolved configs with other values, by dotted path."""
    accuracy: tuple[Line, ...]
    """Test accuracies by who was examined, with 95 % intervals."""
    work: tuple[Line, ...]
    """Iterations, rows, tokens, seconds."""
    last: Difference | None
    """Ours minus theirs: the kept students on the test rows that both runs share; None without shared rows."""
    shared_rows: int


def compared(ours: RunRecord, theirs: RunRecord) -> Comparison:
    difference, shared = _difference(ours, theirs)
    return Comparison(
        settings=_settings(ours.config, theirs.config),
        accuracy=_lines(_accuracy(ours), _accuracy(theirs)),
        work=_lines(_work(ours), _work(theirs)),
        last=difference,
        shared_rows=shared,
    )


def _settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Line, ...]:
    a, b = dict(_flat(ours)), dict(_flat(theirs))
    fields = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name) and name not in _NAMES]
    return tuple(Line(name=name, ours=a.get(name), theirs=b.get(name)) for name in fields)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted paths and their values as YAML users write them. An address may hold a password: it is left out."""
    found: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            found += _flat(item, f"{prefix}{name}.")
        else:
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
            found.append((f"{prefix}{name}", _PASSWORD.sub("://…@", text)))
    return found


def _lines(ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[Line, ...]:
    return tuple(Line(name=name, ours=ours.get(name), theirs=theirs.get(name)) for name in dict.fromkeys([*ours, *theirs]))


def _accuracy(record: RunRecord) -> dict[str, str]:
    found = record.exams["accuracy"] if record.exams else {}
    return {
        who: f"{a['value']:.3f} ({a['low']:.3f} to {a['high']:.3f}), {a['hits']}/{a['total']}{_unanswered(a)}"
        for who, a in found.items()
    }


def _unanswered(told: Mapping[str, Any]) -> str:
    """What follows a count, where rows have no answer. Example: ", 3 unanswered"."""
    return f", {count} unanswered" if (count := unanswered(told)) else ""


def _work(record: RunRecord) -> dict[str, str]:
    iterations = record.iterations
    found = {"state": record.state, "iterations done": f"{len(iterations)} of {record.config['run']['iterations']}"}
    for item in iterations:
        round_, at = item["round"], item["index"] + 1
        found[f"rows trained on, iteration {at}"] = str(item["dataset"]["num_rows"])
        found[f"wrong, iteration {at}"] = f"{round_['wrong']} of {round_['evaluated']}{_unanswered(round_)}"
    rounds = [item["round"] for item in iterations]
    found["teacher asked"] = _sum(rounds, lambda round_: round_["asked"])
    found["rows accepted"] = _sum(rounds, lambda round_: round_["accepted"])
    rejected = sum((Counter(round_["rejected"]) for round_ in rounds), Counter[str]())
    found |= {f"rejected: {reason}": str(count) for reason, count in sorted(rejected.items())}
    return found | _tokens(record) | _seconds(record)


def _tokens(record: RunRecord) -> dict[str, str]:
    indices = [item["index"] for item in record.iterations]
    told = [found.round["result"] for found in record.rounds() if found.iteration in indices]
    metrics = [item["student"]["metrics"] for item in record.iterations]
    return {
        "updates": _sum(metrics, lambda metric: metric.get("updates", 0)),
        "tokens trained on": _sum(metrics, lambda metric: metric.get("tokens", 0)),
        "student tokens in rounds": _sum(told, lambda result: result["student_tokens"]),
        "teacher prompt tokens": _sum(told, lambda result: result["teacher_prompt_tokens"]),
        "teacher tokens written": _sum(told, lambda result: result["teacher_completion_tokens"]),
    }


def _seconds(record: RunRecord) -> dict[str, str]:
    """Of the loop's own stages and of the exams. Counted once: a stage that was broken off and repeated, and an exam of two
    (first and kept student are one where there is one iteration)."""
    found = {
        f"seconds, {name}": sum(item["seconds"].get(name, 0.0) for item in record.iterations)
        for name in ("train", "round", "commit")
    }
    if record.exams:
        found["seconds, exam"] = sum({exam["rows"]: exam["seconds"] for exam in record.exams["accuracy"].values()}.values())
    if record.report:
        found["seconds, engine start"] = record.report["engine_seconds"]
    return {name: f"{value:.0f}" for name, value in found.items()}


def _sum(items: Sequence[Mapping[str, Any]], number: Callable[[Mapping[str, Any]], int]) -> str:
    return str(sum(number(item) for item in items))


def _difference(ours: RunRecord, theirs: RunRecord) -> tuple[Difference | None, int]:
    a, b = _marks(ours), _marks(theirs)
    shared = a.keys() & b.keys()
    return (paired_difference(a, b) if shared else None), len(shared)


def _marks(record: RunRecord) -> dict[str, bool]:
    """Test row -> right, of the kept student. Rows go by id and text: two files may number other rows alike."""
    last = record.exams["accuracy"].get("kept") if record.exams else None
    if last is None:
        return {}
    return {f"{row['id']}\n{row['input']}": grade(row) == "right" for row in record.round_rows(last["rows"])}
