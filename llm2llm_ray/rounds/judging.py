"""The judge's role in a stream: each candidate's text is solved again, blind, and a candidate stays that enough votes confirm.

A vote is a sample of its own: its request is made of the text and the vote's number, so a stored one is never paid twice, and
rows with the same text share theirs. Rows without candidates flow past untouched. Adds the `JUDGED` columns.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Literal

from llm2llm_ray.asking.no_answer import NO_BUDGET, PASSING, WANTED, detail_of, reason_of
from llm2llm_ray.asking.request import AskModel, Request, merged_system, sampling_seed
from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.config import RelabelConfig, TeacherConfig
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.rounds.blind_exam import heard
from llm2llm_ray.rounds.rows import candidates_of
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example, Rejected, Reply

JUDGED: Mapping[str, type] = {
    "candidates": str,
    "rejected": str,
    "budget_stop": bool,
    "judged": int,
    "votes": str,
    "judge_error": str,
    "judged_from": float,
    "judged_until": float,
    "judge_prompt_tokens": int,
    "judge_completion_tokens": int,
}
"""The first three are the teacher's, less what was not confirmed. `judged` counts requests; `votes` is JSON, an item for each
candidate: ordinal, attempt, index, verdict, votes (said, agrees, error)."""
UNJUDGED: Mapping[str, Any] = {
    "judged": 0, "votes": "[]", "judge_error": "", "judged_from": None, "judged_until": None, "judge_prompt_tokens": 0,
    "judge_completion_tokens": 0,
}  # fmt: skip
_MOST_SAID = 60
"""Characters of a vote's answer that are kept in a row; the reply store has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """`said`: the answer found in a reply; None where none was, and where there was no reply (`error` says why)."""

    said: str | None = None
    agrees: bool = False
    error: str = ""
    reply: Reply | None = None

    @property
    def lost(self) -> bool:
        """Nobody was reached, the budget was used up, or a file of replies lacks it: it may be had another time."""
        return reason_of(self.error) in PASSING | WANTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    votes: tuple[Vote, ...]
    outcome: Literal["confirmed", "doubted", "unheard"]
    """`unheard`: too few votes could be had to settle it."""

    @property
    def error(self) -> str:
        """Why it was not heard; what passes by itself comes first."""
        errors = [vote.error for vote in self.votes if vote.error]
        return next((error for error in errors if reason_of(error) in PASSING), errors[-1] if errors else "")

    def told(self) -> str:
        """Example: "1 of 3 votes; others: account 2"."""
        others = Counter("no answer" if vote.said is None else vote.said[:_MOST_SAID] for vote in self.votes if not vote.agrees)
        agreed = sum(vote.agrees for vote in self.votes)
        return f"{agreed} of {len(self.votes)} votes; others: {', '.join(f'{said} {n}' for said, n in sorted(others.items()))}"


def settled(agreed: int, against: int, *, votes: int, needed: int) -> bool:
    """Whether further votes could change nothing."""
    return agreed >= needed or against > votes - needed


class Judge:
    """One row in, up to `votes` requests for each of its candidates out."""

    def __init__(
        self, task: Task, examples: Sequence[Example], *, settings: RelabelConfig, asked: TeacherConfig, run_seed: int
    ) -> None:
        """`examples`: real rows that every vote is shown (`shown_blind`). `asked`: the model that votes."""
        self._task, self._examples, self._settings, self._asked, self._run_seed = task, examples, settings, asked, run_seed

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        candidates = candidates_of(row)
        if not candidates:
            return {**row, **UNJUDGED}
        started = time.time()
        verdicts = await asyncio.gather(*[self.verdict(candidate, ask) for candidate in candidates])
        kept: list[Candidate] = []
        rejected = json.loads(row["rejected"])
        for candidate, verdict in zip(candidates, verdicts, strict=True):
            stays = self._after(candidate, verdict)
            if stays is not None:
                kept.append(stays)
            else:
                line = candidate.lineage
                rejected.append(asdict(self._reason(candidate, verdict)) | {"ordinal": line.ordinal, "attempt": line.attempt})
        votes = [vote for verdict in verdicts for vote in verdict.votes]
        replies = [vote.reply for vote in votes if vote.reply is not None]
        unheard = [reason_of(verdict.error) for verdict in verdicts if verdict.outcome == "unheard"]
        return row | {
            "candidates": json.dumps([asdict(candidate) for candidate in kept]),
            "rejected": json.dumps(rejected),
            "budget_stop": row["budget_stop"] or any(reason_of(vote.error) == NO_BUDGET for vote in votes),
            "judged": len(replies),
            "votes": json.dumps([_told(*pair) for pair in zip(candidates, verdicts, strict=True)]),
            "judge_error": next((why for why in unheard if why in PASSING), unheard[0] if unheard else ""),
            "judged_from": started,
            "judged_until": time.time(),
            "judge_prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "judge_completion_tokens": sum(reply.completion_tokens for reply in replies),
        }

    async def verdict(self, candidate: Candidate, ask: AskModel) -> Verdict:
        """Asks for no vote that the outcome does not need: those that it needs in any case are asked for at once."""
        votes: list[Vote] = []
        most, needed = self._settings.votes, self._settings.least
        while True:
            agreed = sum(vote.agrees for vote in votes)
            against = len(votes) - agreed
            if settled(agreed, against, votes=most, needed=needed) or any(vote.lost for vote in votes):
                break
            sure = min(needed - agreed, most - needed + 1 - against)
            numbers = range(len(votes), len(votes) + sure)
            votes += await asyncio.gather(*[self._vote(candidate, number, ask) for number in numbers])
        heard = [vote for vote in votes if not vote.lost]
        against = sum(not vote.agrees for vote in heard)
        if agreed >= needed:
            return Verdict(votes=tuple(votes), outcome="confirmed")
        answered = any(not vote.error for vote in heard) and settled(agreed, against, votes=most, needed=needed)
        return Verdict(votes=tuple(votes), outcome="doubted" if answered else "unheard")

    async def _vote(self, candidate: Candidate, number: int, ask: AskModel) -> Vote:
        try:
            reply = await ask(self.request(candidate.input, number))
        except BudgetExhausted as stop:
            return Vote(error=f"{NO_BUDGET}: {stop}")
        if reply.error:
            return Vote(error=reply.error, reply=reply)
        said, agrees = heard(self._task, candidate.output, reply)
        return Vote(said=said, agrees=agrees, reply=reply)

    def request(self, text: str, number: int) -> Request:
        """One vote on `text`: the same for all rows that have this text."""
        asked, settings = self._asked, self._settings
        prompt = self._task.judge_prompt(text, self._examples, style=asked.style)
        row_id = f"v-{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
        sampling = {
            "temperature": settings.temperature,
            "top_p": asked.top_p,
            "max_tokens": settings.max_tokens or asked.max_tokens,
            "seed": sampling_seed(self._run_seed, row_id, number, 0),
        }
        merged = merged_system(prompt) if asked.system_message == "merge" else prompt
        return Request(row_id=row_id, prompt=merged, sampling=sampling, ordinal=number)

    def _after(self, candidate: Candidate, verdict: Verdict) -> Candidate | None:
        """What becomes of a candidate; None: it is dropped."""
        if verdict.outcome == "confirmed" or self._settings.on_doubt == "keep":
            return candidate
        return replace(candidate, weight=self._settings.weight) if self._settings.on_doubt == "weight" else None

    def _reason(self, candidate: Candidate, verdict: Verdict) -> Rejected:
        text = candidate.input[:200].encode("utf-8", "backslashreplace").decode()
        if verdict.outcome == "unheard":
            return Rejected(reason="judge_error", detail=verdict.error, text=text)
        plain = self._task.answer(self._task.completion(candidate.output)) == candidate.output.strip()
        reason = "relabelled" if plain else "disagreed"
        detail = verdict.told().encode("utf-8", "backslashreplace").decode()
        return Rejected(reason=reason, detail=detail, text=text)


def _told(candidate: Candidate, verdict: Verdict) -> dict[str, Any]:
    line = candidate.lineage
    votes = [{"said": vote.said and vote.said[:_MOST_SAID], "agrees": vote.agrees, "error": vote.error} for vote in verdict.votes]
    return {
        "ordinal": line.ordinal, "attempt": line.attempt, "index": candidate.index, "verdict": verdict.outcome, "votes": votes,
    }  # fmt: skip


def judge_details(row: Mapping[str, Any]) -> list[str]:
    """The words that votes of a row were refused with, for the reason that the row is counted under."""
    errors = [vote["error"] for item in json.loads(row["votes"]) for vote in item["votes"] if vote["error"]]
    return [detail_of(error) for error in errors if reason_of(error) == row["judge_error"]]
