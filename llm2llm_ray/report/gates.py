"""What each gate did: how many of the teacher's texts it looked at, how many it turned away, and what that cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.report.outcomes import Rejections
from llm2llm_ray.report.wording import count

_NO_TEXT = frozenset({"teacher_error", "not_recorded"})
_FORM = "the reply itself: its form, length and answer"
_VOTES = "blind votes (gates.relabel)"
_GATES: Mapping[str, tuple[str, ...]] = {
    _FORM: (),
    _VOTES: ("relabelled", "disagreed", "judge_error"),
    "dev and test rows": ("contaminated",),
    "rows that are there": ("duplicate", "near_duplicate", "conflicting_label"),
    "caps (gates.caps)": ("class_cap", "seed_cap"),
}
"""In the order in which a text meets them. Reasons that stand nowhere here are the first's: a task may have its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    name: str
    seen: int
    removed: int
    share: float
    """Of those seen."""
    cost: str
    """"" where nobody was asked."""


def gates(run: RunRecord, found: Rejections) -> list[Gate]:
    """Of all rounds in force; gates that had nothing to look at or nothing to say are left out, the first one never."""
    elsewhere = {reason: gate for gate, reasons in _GATES.items() for reason in reasons}
    removed: Counter[str] = Counter()
    for reason in found.reasons:
        if reason.name not in _NO_TEXT:
            removed[elsewhere.get(reason.name, _FORM)] += reason.count
    left, votes = found.accepted + sum(removed.values()), _votes(run)
    told = []
    for name in _GATES:
        cost = votes if name == _VOTES else ""
        if left and (removed[name] or cost or name == _FORM):
            told.append(Gate(name=name, seen=left, removed=removed[name], share=removed[name] / left, cost=cost))
        left -= removed[name]
    return told


def _votes(run: RunRecord) -> str:
    """Example: "45 votes (9,120 tokens): 14 confirmed, 5 in doubt, of which 0 were kept". Runs of earlier versions had none."""
    spent: Counter[str] = Counter()
    for record in run.rounds():
        result = record.round["result"]
        names = ("judged", "judge_prompt_tokens", "judge_completion_tokens", "confirmed", "doubted", "unheard")
        spent.update({name: result.get(name, 0) for name in names})
        dropped = ("relabelled", "disagreed", "judge_error")
        spent["dropped"] += sum(result["rejected"].get(reason, 0) for reason in dropped)
    if not spent["judged"]:
        return ""
    tokens = spent["judge_prompt_tokens"] + spent["judge_completion_tokens"]
    kept = spent["doubted"] + spent["unheard"] - spent["dropped"]
    told = [f"{count(spent['confirmed'])} confirmed", f"{count(spent['doubted'])} in doubt"]
    told += [f"{count(spent['unheard'])} without enough votes"] if spent["unheard"] else []
    told += [f"{count(kept)} of these kept"] if kept else []
    return f"{count(spent['judged'])} votes, {count(tokens)} tokens: {', '.join(told)}"
