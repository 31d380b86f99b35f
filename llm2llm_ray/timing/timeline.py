"""Where the time of a run went: its phases, each with the work that was done in it. Read from the run folder; no Ray.

Works on a finished run, a dead one and a live one. Invariant: computing means an optimizer update or an open request, so
imports, loading, exporting and waiting for a pipeline to start are idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.timing.intervals import Interval, clipped, length, mean_open, overlap, peak
from llm2llm_ray.timing.phases import Phase, phases
from llm2llm_ray.timing.work import ROLES, Role, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """Requests of one role in one phase."""

    requests: int
    """Answered in this phase."""
    prompt_tokens: int
    generated_tokens: int
    mean: float
    """Open at once, over the time in which any is open."""
    peak: int
    seconds: float
    """In which any is open."""
    approximate: bool
    """The replies do not say when they were sent: `mean`, `peak` and `seconds` are of rows, which also wait for a slot."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What one phase came to. Tokens are what models computed in it; a reply that was stored before costs none."""

    phase: Phase
    who: str | None
    """Whose exam it is, see Work.who."""
    rows: int | None
    """Trained on, evaluated, or accepted by the commit; None where there are none or the stage did not end."""
    updates: int
    trained_tokens: int
    student: Flight
    teacher: Flight
    judge: Flight
    """Votes on new rows, whoever gives them."""
    busy_seconds: float
    """In which an optimizer update was computed or a request was open."""
    overlap_seconds: float
    """In which student and teacher both had a request open."""
    first_work_s: float | None
    """From the phase's start to its first update or request; None without any."""
    last_work_s: float | None
    """From the end of its last update or request to the phase's end."""
    early_teacher_share: float | None
    """Share of the teacher's rows begun before the student's last answer; of finished rounds."""
    first_call_s: float | None
    """From the student's first wrong answer to the first teacher call; of finished rounds."""

    @property
    def tokens(self) -> int:
        return self.trained_tokens + self.student.tokens + self.teacher.tokens + self.judge.tokens

    @property
    def tokens_per_s(self) -> float | None:
        """Over the whole phase, idle time included."""
        return self.tokens / self.phase.seconds if self.tokens and self.phase.seconds else None

    @property
    def timed(self) -> bool:
        """False when requests were answered and nothing says how long they were open: then it is not known what was idle."""
        return all(flight.peak or not flight.requests for flight in (self.student, self.teacher, self.judge))

    @property
    def idle_share(self) -> float:
        return 1 - self.busy_seconds / self.phase.seconds if self.phase.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A sum. Example: Total(name="iteration 1", seconds=209.0, busy_seconds=160.2, tokens=6120, overlap_seconds=3.4)"""

    name: str
    seconds: float
    busy_seconds: float
    tokens: int
    overlap_seconds: float

    @property
    def idle_share(self) -> float:
        return 1 - self.busy_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    run: str
    activities: tuple[Activity, ...]
    """In the order of time."""

    @property
    def sessions(self) -> list[Interval]:
        """First and last sign of life of each start of the command, Unix seconds."""
        by_session = groupby((activity.phase for activity in self.activities), key=lambda phase: phase.session)
        spans = [list(found) for _, found in by_session]
        return [(found[0].started, found[-1].ended) for found in spans]

    @property
    def wall_seconds(self) -> float:
        """Over all sessions, without the time between them."""
        return sum(end - start for start, end in self.sessions)

    def total(self, name: str, group: str | None = None) -> Total:
        """Sum over the phases of one group (see Phase.group); None: over all."""
        found = [activity for activity in self.activities if group in (None, activity.phase.group)]
        return Total(
            name=name,
            seconds=sum(activity.phase.seconds for activity in found),
            busy_seconds=sum(activity.busy_seconds for activity in found),
            tokens=sum(activity.tokens for activity in found),
            overlap_seconds=sum(activity.overlap_seconds for activity in found),
        )

    def groups(self) -> list[Total]:
        """`around` (start, engines, report), each iteration, `test`: those that there are, in this order."""
        names = {activity.phase.group for activity in self.activities}
        return [self.total(name, name) for name in sorted(names, key=lambda n: (n == "test", n != "around", len(n), n))]


def timeline(record: RunRecord) -> Timeline:
    """Read all of a run. Reads every reply and every round's rows once: seconds for a hundred thousand of them."""
    work = Work(record)
    found = phases(record.events, work.signs())
    return Timeline(run=record.name, activities=tuple(_activity(phase, work) for phase in found))


def _activity(phase: Phase, work: Work) -> Activity:
    stage, span = work.stage(phase.key) if phase.finished else None, (phase.started, phase.ended)
    updates = [u for u in work.updates(phase.key) if _within(u.ended, span)] if phase.key else []
    open_rows = work.rows_open(phase.key)
    flights = {role: _flight(role, work, span, open_rows.get(role, [])) for role in ROLES}
    (student, student_open), (teacher, teacher_open), (judge, judge_open) = (flights[role] for role in ROLES)
    busy = clipped([*((u.started, u.ended) for u in updates), *student_open, *teacher_open, *judge_open], *span)
    told = (stage["result"].get("overlap") if stage else None) or {}
    return Activity(
        phase=phase,
        who=work.who(phase.key),
        rows=_rows(stage["result"]) if stage else None,
        updates=len(updates),
        trained_tokens=sum(update.tokens for update in updates),
        student=student,
        teacher=teacher,
        judge=judge,
        busy_seconds=length(busy),
        overlap_seconds=overlap(student_open, teacher_open),
        first_work_s=min(start for start, _ in busy) - phase.started if busy else None,
        last_work_s=phase.ended - max(end for _, end in busy) if busy else None,
        early_teacher_share=told.get("share_before_last_answer"),
        first_call_s=told.get("first_call_after_s"),
    )


def _within(time: float, span: Interval) -> bool:
    return span[0] < time <= span[1]


def _rows(result: Mapping[str, Any]) -> int | None:
    found = result.get("evaluated", result.get("accepted", result.get("metrics", {}).get("rows")))
    return None if found is None else int(found)


def _flight(role: Role, work: Work, span: Interval, rows: Sequence[Interval]) -> tuple[Flight, list[Interval]]:
    """A role's requests in a phase, and when they were open."""
    answered = [reply for reply in work.asked if reply.role == role and _within(reply.came, span)]
    approximate = any(reply.sent is None for reply in answered)
    opened = clipped(rows if approximate else [(r.sent, r.came) for r in answered if r.sent is not None], *span)
    flight = Flight(
        requests=len(answered),
        prompt_tokens=sum(reply.prompt_tokens for reply in answered),
        generated_tokens=sum(reply.generated_tokens for reply in answered),
        mean=mean_open(opened),
        peak=peak(opened),
        seconds=length(opened),
        approximate=approximate,
    )
    return flight, opened
