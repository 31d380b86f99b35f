"""What a stream asks, for every role: keeps many requests in flight, stores every reply, and hands graded or augmented rows back.

Invariant: a reply is durable in the reply store before its row goes on, and a request whose reply is stored is never sent. An
error whose cause may be mended is no reply: it is told in its row, and asked again when the stage is.
What a role asks and makes of the answers is the role's business (solving.py, rounds/augmenting.py), the process it happens in
is asker.py's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.asking.budget import Budget
from llm2llm_ray.asking.no_answer import NOT_RECORDED, PASSING, UNAVAILABLE, is_kept, reason_of
from llm2llm_ray.asking.recorded import RecordedReplies, written_prompt
from llm2llm_ray.asking.request import AskModel, Request
from llm2llm_ray.config import BudgetConfig
from llm2llm_ray.errors import Stopping, UserError
from llm2llm_ray.runtime.streaming.telling import Telling
from llm2llm_ray.runtime.streaming.transports import Route, open_route
from llm2llm_ray.storage.files import Files, read_anywhere
from llm2llm_ray.storage.replies import ReplyLog, read_replies
from llm2llm_ray.types import Reply

Role = Callable[[dict[str, Any], AskModel], Awaitable[dict[str, Any]]]
_ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_AWAY = 8
"""So many requests in a row that nobody was reached for, each after all its client's retries: the others are not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSource:
    """A live teacher's own replies in a file (`teacher.replies`): of the same model to the same request, sampled the same."""

    path: str
    """Where every node finds it."""
    file: str
    """As the user named it."""
    model: str
    weights_sha: str
    """Of an engine of ours; "" for a service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Who answers, where, and below which folder of the run the answers are kept."""

    route: Route
    answerer: Answerer
    replies: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """What one role of one stream is built from. Example: RoleSpec(name="student", role=Solve(…), route=EngineRoute(…), …)"""

    name: str
    role: Role
    adds: Mapping[str, type]
    """Columns that the role adds, so that every block has the same schema whatever its rows hold."""
    route: Route
    answerer: Answerer
    """Who is at the end of the route: part of every reply's key."""
    run_root: str
    replies: str
    """Folder of this stage's replies below the run."""
    budget_replies: tuple[str, ...] = ()
    """Folders whose replies the budget has paid for already."""
    in_flight: int = 64
    budget: BudgetConfig | None = None
    progress: Any = None
    """Handle of the driver, told how many rows are done; None: nobody is."""
    asked_of: str = ""
    """Whom the rows' lineage will name; "": whoever a reply says it is of."""
    recorded: RecordedSource | None = None
    """Where a reply is looked for before anybody is asked."""
    asker: Any
    """Handle of the `Asker` that asks."""
    stream: str = ""
    """Names the stream to the driver: the actors of the one before may still be telling of theirs."""
    by_fold: tuple[Voice, ...] = ()
    """Each fold's student, where rows have a fold and each is answered by its own (by_fold.py): in place of `route`, `answerer`
    and `replies`."""


class Line:
    """To one model in one stream: one client with its limits, so many requests open, one budget, whichever role asks."""

    def __init__(self, spec: RoleSpec, on_retry: Callable[[], None]) -> None:
        self.route = spec.route
        self.transport = open_route(spec.route, on_retry)
        self.slots = asyncio.Semaphore(spec.in_flight)
        self.budget = Budget(spec.budget) if spec.budget else None
        if self.budget:
            for folder in spec.budget_replies:
                stored = read_replies(Files(spec.run_root), folder)
                paid = (record for record in stored if not record["request"].get("recorded"))
                self.budget.replay(Reply(**record["reply"]) for record in paid)
        self.recorded = RecordedReplies(spec.recorded.file, read_anywhere(spec.recorded.path)) if spec.recorded else None
        self.open = 0
        self.not_reached = 0
        self.ending: Exception | None = None
        """Why nothing new is sent any more."""

    def stop(self) -> None:
        self.ending = self.ending or Stopping("the run is being stopped")


class StreamRole:
    """One role of one stream. `line`: of another role that asks the same model. `beside`: the same role of another fold's
    student, with which it counts as one."""

    def __init__(self, spec: RoleSpec, line: Line | None = None, beside: StreamRole | None = None) -> None:
        self._spec = spec
        self._log = ReplyLog(Files(spec.run_root), spec.replies)
        self.telling: Telling = beside.telling if beside else Telling(spec.run_root, spec.stream, spec.name, spec.progress)
        self._metrics = self.telling.metrics
        self.line = line or Line(spec, self._metrics.retried)
        if beside:
            self.line.slots = beside.line.slots
        self.telling.on_stop.append(self.line.stop)
        self._asking: dict[str, asyncio.Event] = {}
        """By key, of the requests that have no reply yet; set when they are over."""

    async def answer(self, block: pa.Table) -> pa.Table:
        self.telling.listen()
        rows = block.to_pylist()
        done = 0
        try:
            answered = await asyncio.gather(*[self._spec.role(row, self.reply) for row in rows])
            done = len(rows)
        finally:
            self.telling.passed(done)
        added = [pa.field(name, _ARROW[kind]) for name, kind in self._spec.adds.items()]
        schema = pa.schema([field for field in block.schema if field.name not in self._spec.adds] + added)
        return pa.Table.from_pylist(answered, schema=schema)

    def close(self) -> None:
        """No block will come any more."""
        self.telling.close()
        self._log.close()

    async def reply(self, request: Request) -> Reply:
        """The stored reply, or a new one, stored."""
        key = self._spec.answerer.reply_key(request)
        while (stored := self._log.find(key)) is None and key in self._asking:
            await self._asking[key].wait()  # another row asks the same
        if stored is not None:
            self._metrics.replayed()
            return stored
        self._asking[key] = asyncio.Event()
        try:
            return await self._given(key, request) or await self._new(key, request)
        finally:
            self._asking.pop(key).set()

    async def _new(self, key: str, request: Request) -> Reply:
        async with self.line.slots:
            if self.line.ending is not None:
                await self._drained(self.line.ending)
            sent = time.time()
            try:
                reply = await self._asked(request)
            except UserError as mistake:  # a service that serves nobody any more, say with a key that was revoked
                self.line.ending = self.line.ending or mistake
                await self._drained(mistake)
        if not is_kept(reply.error):
            return reply  # a resumed run asks again
        return await self._log.put(key, reply, self._about(request, reply, sent))

    async def _given(self, key: str, request: Request) -> Reply | None:
        """What the teacher said to this very request before, in a file: stored, marked, and paid by nobody."""
        source = self._spec.recorded
        if source is None or self.line.recorded is None:
            return None
        said = self.line.recorded.find_same(request, model=source.model, weights_sha=source.weights_sha)
        if said is None:
            return None
        self._metrics.replayed()
        about = self._about(request, said, time.time())
        return await self._log.put(key, said, about | {"recorded": source.file})

    def _about(self, request: Request, reply: Reply, sent: float) -> dict[str, Any]:
        """What is kept beside a reply. A prompt that is a text alone, as every student's, is kept as it is."""
        prompt = request.prompt
        return {
            "asked_of": self._spec.asked_of or reply.model,
            "sent": sent,
            "seconds": time.time() - sent,
            "prompt_sha": request.prompt_sha,
            "sampling": dict(request.sampling),
            "row_id": request.row_id,
            "ordinal": request.ordinal,
            "attempt": request.attempt,
            "prompt": written_prompt(prompt) if prompt.messages or prompt.stop else prompt.text,
        }

    async def _asked(self, request: Request) -> Reply:
        line = self.line
        if line.not_reached >= _AWAY:
            return Reply(text="", finish_reason="error", error=f"{UNAVAILABLE}: not sent, {_AWAY} others in a row had no answer")
        if line.budget:
            line.budget.reserve()
        self.telling.open += 1
        line.open += 1
        try:
            reply = await line.transport.ask(request)
        except BaseException:
            if line.budget:
                line.budget.release()
            raise
        finally:
            self.telling.open -= 1
            line.open -= 1
        line.not_reached = line.not_reached + 1 if reason_of(reply.error) in PASSING else 0
        self._metrics.answered(reply)
        if line.budget and reason_of(reply.error) == NOT_RECORDED:
            line.budget.release()
        elif line.budget:
            line.budget.spend(reply)
        return reply

    async def _drained(self, why: Exception) -> NoReturn:
        """Ray Data ends the whole stream at the first error, so it is raised only once nothing is in flight."""
        while self.line.open:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # the last replies' group commit
        raise why
