"""What a stream asks, for every role: keeps many requests in flight, stores every reply, and hands graded or augmented rows back.

Invariant: a reply is durable in the reply store before its row goes on, and a request whose reply is stored is never sent. An
error whose cause may be mended is no reply: it is told in its row, and asked again when the stage is.
What a role asks and makes of the answers is the role's business (solving.py, rounds/augmenting.py). `Asker` is the process it
happens in; Ray Data reaches it through `add_role`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa
import ray

from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.asking.budget import Budget
from llm2llm_ray.asking.no_answer import NOT_RECORDED, PASSING, UNAVAILABLE, is_kept, reason_of
from llm2llm_ray.asking.recorded import RecordedReplies, written_prompt
from llm2llm_ray.asking.request import AskModel, Request
from llm2llm_ray.config import BudgetConfig
from llm2llm_ray.errors import Stopping, UserError
from llm2llm_ray.runtime.environment import SERVE, values
from llm2llm_ray.runtime.priority import stands
from llm2llm_ray.runtime.series import RoleMetrics
from llm2llm_ray.runtime.streaming.transports import Route, open_route
from llm2llm_ray.storage.files import Files, read_anywhere
from llm2llm_ray.storage.replies import ReplyLog, read_replies
from llm2llm_ray.types import Reply

Role = Callable[[dict[str, Any], AskModel], Awaitable[dict[str, Any]]]
_ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_REPORT_EVERY_S = 0.5
_BEGIN_S = 60.0
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


class StreamRole:
    """One role of one stream. `line`: of another role that asks the same model."""

    def __init__(self, spec: RoleSpec, line: Line | None = None) -> None:
        self._spec = spec
        self._log = ReplyLog(Files(spec.run_root), spec.replies)
        self._metrics = RoleMetrics(spec.run_root, spec.name)
        self.line = line or Line(spec, self._metrics.retried)
        self._asking: dict[str, asyncio.Event] = {}
        """By key, of the requests that have no reply yet; set when they are over."""
        self._done = 0
        self._open = 0
        self._listener: asyncio.Task[None] | None = None

    async def answer(self, block: pa.Table) -> pa.Table:
        if self._listener is None and self._spec.progress is not None:
            self._listener = asyncio.create_task(self._listen())
        rows = block.to_pylist()
        done = 0
        try:
            answered = await asyncio.gather(*[self._spec.role(row, self.reply) for row in rows])
            done = len(rows)
        finally:
            self._metrics.tell(rows=done, in_flight=self._open)
        self._done += done
        added = [pa.field(name, _ARROW[kind]) for name, kind in self._spec.adds.items()]
        schema = pa.schema([field for field in block.schema if field.name not in self._spec.adds] + added)
        return pa.Table.from_pylist(answered, schema=schema)

    def close(self) -> None:
        """No block will come any more."""
        if self._listener is not None:
            self._listener.cancel()
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
        self._open += 1
        line.open += 1
        try:
            reply = await line.transport.ask(request)
        except BaseException:
            if line.budget:
                line.budget.release()
            raise
        finally:
            self._open -= 1
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

    async def _listen(self) -> None:
        """Tell the driver what is done, and hear from it whether to stop."""
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            self._metrics.tell(rows=0, in_flight=self._open)
            stop = await self._spec.progress.advance.remote(self._spec.stream, self._spec.name, self._done)
            if stop and self.line.ending is None:
                self.line.ending = Stopping("the run is being stopped")


class Asker:
    """Asks one model for the roles that ask it, stream after stream; made an actor by `open_asker`.

    It lives as long as the run: a process of its own for each stream would import Serve and tokenizers anew, ten seconds of a
    laptop's processor before the first row, and Ray Data starts new processes for every stream.
    """

    def __init__(self, tokenizes: bool) -> None:
        if tokenizes:
            import transformers

            _ = transformers.AutoTokenizer  # transformers imports on first use
        self._stream = ""
        self._roles: dict[str, asyncio.Future[StreamRole]] = {}
        """Of this stream, by name."""
        self._lines: list[Line] = []
        self._begun: dict[tuple[str, str], asyncio.Event] = {}
        stands()

    async def begin(self, stream: str, role: str, spec: Sequence[Any]) -> None:
        """Told by a role's operator once its process stands. `spec` holds a reference to the RoleSpec: it travels once."""
        await self._role(stream, role, spec)
        self._begun.setdefault((stream, role), asyncio.Event()).set()

    async def begun(self, stream: str, role: str) -> None:
        """Returns when the role's blocks would be answered at once, or after a minute: what fails is Ray Data's to mend."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._begun.setdefault((stream, role), asyncio.Event()).wait(), _BEGIN_S)

    async def answer(self, stream: str, role: str, spec: Sequence[Any], block: pa.Table) -> pa.Table:
        return await (await self._role(stream, role, spec)).answer(block)

    def _role(self, stream: str, role: str, spec: Sequence[Any]) -> asyncio.Future[StreamRole]:
        """The role's state, made for its first call (of this process: it may have been restarted) and for no other."""
        if stream != self._stream:
            for over in self._roles.values():
                if over.done() and over.exception() is None:
                    over.result().close()
            self._stream, self._roles, self._lines = stream, {}, []
            self._begun = {place: event for place, event in self._begun.items() if place[0] == stream}
        if role not in self._roles:
            self._roles[role] = asyncio.ensure_future(self._made(spec[0]))
        return self._roles[role]

    async def _made(self, spec: Any) -> StreamRole:
        spec = await spec
        made = StreamRole(spec, next((line for line in self._lines if line.route == spec.route), None))
        self._lines.append(made.line)
        return made


def open_asker(*, served: bool, tokenizes: bool = True) -> Any:
    """A handle on a new `Asker`, which ends with its owner. `served`: it asks applications of ours; those that have a tokenizer,
    where it `tokenizes`: it is imported at once."""
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 10_000}
    if served:
        options["runtime_env"] = {"env_vars": values(SERVE)}
    return ray.remote(Asker).options(**options).remote(served and tokenizes)
