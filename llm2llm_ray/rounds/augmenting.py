"""The teacher's role in a stream: for a wrong row, ask for new examples until the stateless gates pass one (or attempts
run out). Right rows flow past untouched, unless they are targets (targeting.py). Adds the `ASKED` columns; drafts and rejections
are JSON, ready for the commit. `asked` counts requests, `other_group` the candidates for which the teacher gave another label
than the one asked for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from heapq import heappush, heappushpop
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from llm2llm_ray.asking.no_answer import NOT_RECORDED, PASSING, reason_of
from llm2llm_ray.asking.recorded import lineage_name
from llm2llm_ray.asking.request import AskModel, Request, merged_system, sampling_seed
from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.augmentation.gates import check
from llm2llm_ray.config import AugmentationConfig, TeacherConfig
from llm2llm_ray.config.schedule import rows_per_call
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.rounds.aimed import Aimed
from llm2llm_ray.rounds.folds import FOLD
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.types import Draft, Example, Graded, Lineage, Rejected

ASKED: Mapping[str, type] = {
    "target": bool,
    "asked": int,
    "other_group": int,
    "candidates": str,
    "rejected": str,
    "teacher_error": str,
    "budget_stop": bool,
    "asked_from": float,
    "asked_until": float,
    "teacher_prompt_tokens": int,
    "teacher_completion_tokens": int,
}
_PEERS_PER_GROUP = 64
UNTOUCHED: Mapping[str, Any] = {
    "target": False, "asked": 0, "other_group": 0, "candidates": "[]", "rejected": "[]", "teacher_error": "",
    "budget_stop": False, "asked_from": None, "asked_until": None, "teacher_prompt_tokens": 0, "teacher_completion_tokens": 0,
}  # fmt: skip


class Peers:
    """Real examples to show beside a wrong one, drawn by a hash: no state, so a resumed run shows the same ones.

    Reads `examples` once and holds at most 64 of each group: it travels to the teacher's asker in every stream.
    `folds`: example id -> fold. What is shown is then of the wrong one's own fold.
    """

    def __init__(self, task: Task, examples: Iterable[Example], folds: Mapping[str, int] = MappingProxyType({})) -> None:
        self._task = task
        kept: dict[tuple[int | None, str], list[tuple[int, int, Example]]] = {}
        for n, example in enumerate(examples):
            group = kept.setdefault((folds.get(example.id), task.group(example)), [])
            # Negative: the heap's first is the one with the largest hash, the next to go.
            entry = -int.from_bytes(sha256(example.id.encode()).digest(), "big"), n, example
            if len(group) < _PEERS_PER_GROUP:
                heappush(group, entry)
            else:
                heappushpop(group, entry)
        self._groups = {name: [example for *_, example in sorted(group, reverse=True)] for name, group in kept.items()}

    def beside(self, mistake: Graded, count: int, draw: str) -> list[Example]:
        """Of the mistake's own group."""
        return self._drawn(self._task.group(mistake.example), mistake, count, draw)

    def confused(self, mistake: Graded, count: int, draw: str) -> list[Example]:
        """Of the group that the row was taken for."""
        group = self._task.taken_for(mistake)
        return [] if group is None else self._drawn(group, mistake, count, draw)

    def _drawn(self, group: str, mistake: Graded, count: int, draw: str) -> list[Example]:
        others = [e for e in self._groups.get((mistake.fold, group), []) if e.id != mistake.example.id]
        return sorted(others, key=lambda e: sha256(f"{draw}/{e.id}".encode()).digest())[:count]


class Augment(Aimed):
    """One wrong row in, the calls for `per_wrong` new examples (each with its attempts) out."""

    def __init__(
        self,
        task: Task,
        peers: Peers,
        *,
        teacher: TeacherConfig,
        settings: AugmentationConfig,
        iteration: int,
        run_seed: int,
    ) -> None:
        self._task, self._peers, self._teacher, self._settings = task, peers, teacher, settings
        self._iteration, self._run_seed = iteration, run_seed
        self._counts = rows_per_call(settings.per_wrong, settings.per_call)

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        if not self.is_for(row):
            return {**row, **UNTOUCHED}
        mistake = graded(row)
        found: list[Candidate] = []
        rejected: list[dict[str, Any]] = []
        seen: dict[str, Any] = dict(UNTOUCHED) | {"target": True, "asked_from": time.time()}
        first = self._iteration * len(self._counts)
        for ordinal in range(first, first + len(self._counts)):
            try:
                found += await self._call(mistake, row, ordinal, ask, rejected, seen)
            except BudgetExhausted:
                seen["budget_stop"] = True
                break
        return (
            row
            | seen
            | {
                "asked_until": time.time(),
                "candidates": json.dumps([asdict(candidate) for candidate in found]),
                "rejected": json.dumps(rejected),
            }
        )

    async def _call(
        self,
        mistake: Graded,
        row: Mapping[str, Any],
        ordinal: int,
        ask: AskModel,
        rejected: list[dict[str, Any]],
        seen: dict[str, Any],
    ) -> list[Candidate]:
        """One call: attempts until a draft passes, then all that pass; every reply's tokens and rejections are kept.

        `seen["teacher_error"]` is set where all attempts were refused, and where one met what passes by itself. That ends them:
        the client has tried again already, and a run that goes on asks for this same one. What is not recorded ends them, too.
        """
        settings, teacher, count = self._settings, self._teacher, self._count(ordinal)
        refused, replied = "", False
        for attempt in range(settings.attempts):
            request = self.request(mistake, ordinal, attempt)
            reply = await ask(request)
            seen["asked"] += 1
            seen["teacher_prompt_tokens"] += reply.prompt_tokens
            seen["teacher_completion_tokens"] += reply.completion_tokens
            if reply.error:
                refused = reason_of(reply.error)
                reason = "not_recorded" if refused == NOT_RECORDED else "teacher_error"
                rejected.append(_record(Rejected(reason=reason, detail=reply.error), ordinal, attempt))
                if refused == NOT_RECORDED:
                    break
                if refused in PASSING:
                    seen["teacher_error"] = refused
                    return []
                continue
            replied = True
            lineage = Lineage(
                seed_id=row["seed_id"] or row["id"],
                parent_id=row["id"],
                iteration=self._iteration,
                ordinal=ordinal,
                attempt=attempt,
                wrong_answer=mistake.completion,
                prompt_sha=request.prompt_sha,
                teacher=lineage_teacher(teacher, reply.model),
                sampling_seed=int(request.sampling["seed"]),
            )
            passed: list[Candidate] = []
            cut = reply.finish_reason == "length"
            for index, item in enumerate(self._task.parse(reply.text, mistake, style=teacher.style, count=count, cut=cut)):
                verdict = check(item, mistake, self._task, settings) if isinstance(item, Draft) else item
                if verdict is None:
                    assert isinstance(item, Draft)
                    passed.append(Candidate(input=item.input, output=item.output, lineage=lineage, index=index))
                    seen["other_group"] += self._elsewhere(item, mistake.example)
                else:
                    rejected.append(_record(verdict, ordinal, attempt))
            if passed:
                return passed
        if not replied and seen["teacher_error"] not in PASSING:  # of several calls, what passes by itself counts
            seen["teacher_error"] = refused
        return []

    def request(self, mistake: Graded, ordinal: int, attempt: int) -> Request:
        """What is asked of the teacher in one call about one wrong row."""
        settings, teacher = self._settings, self._teacher
        row_id, shown = mistake.example.id, settings.show_wrong_answer and not mistake.correct
        draw = f"{row_id}/{ordinal}/{attempt}"
        asked = Asked(
            style=teacher.style,
            count=self._count(ordinal),
            peers=self._peers.beside(mistake, settings.examples_in_prompt, draw),
            show_wrong_answer=shown,
            confused=self._peers.confused(mistake, settings.examples_of_confused, draw) if shown else (),
            call=ordinal,
        )
        prompt = self._task.teacher_prompt(mistake, asked)
        if teacher.system_message == "merge":
            prompt = merged_system(prompt)
        sampling = {
            "temperature": teacher.temperature,
            "top_p": teacher.top_p,
            "max_tokens": teacher.max_tokens,
            "seed": sampling_seed(self._run_seed, row_id, ordinal, attempt),
        }
        return Request(row_id=row_id, prompt=prompt, sampling=sampling, ordinal=ordinal, attempt=attempt)

    def _elsewhere(self, draft: Draft, parent: Example) -> bool:
        """Whether the teacher wrote for another group than it was asked for: whether rightly is not known here."""
        return self._task.group(Example(id="", input=draft.input, output=draft.output)) != self._task.group(parent)

    def _count(self, ordinal: int) -> int:
        """New examples asked for in a row's call of this number."""
        return self._counts[ordinal % len(self._counts)]


def graded(row: Mapping[str, Any]) -> Graded:
    """A stream row as the record that tasks and gates know."""
    example = Example(id=row["id"], input=row["input"], output=row["output"], origin=row["origin"])
    return Graded(
        example=example,
        completion=row["completion"],
        answer=row["answer"],
        correct=row["correct"],
        truncated=row["truncated"],
        error=row["error"],
        fold=row.get(FOLD),
    )


def _record(rejected: Rejected, ordinal: int, attempt: int) -> dict[str, Any]:
    return asdict(rejected) | {"ordinal": ordinal, "attempt": attempt}


def lineage_teacher(teacher: TeacherConfig, replied: str) -> str:
    """Who wrote a row: a recorded reply's own model (`replied`), so that a repeated run has the versions of the first.

    A file goes by its name: a row's lineage, and so its version, must not depend on where the file lies.
    """
    if teacher.kind == "recorded":
        return replied or lineage_name(teacher.model)
    return f"scripted:{PurePath(teacher.model).name}" if teacher.kind == "scripted" else teacher.model
