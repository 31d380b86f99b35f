"""The one UDF of the stream, for both roles: keeps many requests in flight from one Ray Data actor.

Invariant: a reply is durable in the reply store before its row leaves the actor, and a request whose reply is stored is
never sent. What a role asks and makes of the answers is the role's business (solving.py, augmentation/asking.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa
import ray

from llm2llm_ray.config import BudgetConfig
from llm2llm_ray.errors import Stopping
from llm2llm_ray.requests import Asker, Request
from llm2llm_ray.runtime.run_metrics import AskMetrics
from llm2llm_ray.runtime.transports import Route, open_route
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import ReplyLog, read_replies, reply_key
from llm2llm_ray.teacher.budget import Budget
from llm2llm_ray.types import Reply

Role = Callable[[dict[str, Any], Asker], Awaitable[dict[str, Any]]]
_ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_REPORT_EVERY_S = 0.5
_PASSING = "unavailable"
"""Prefix of errors that say nothing about the request: the service could not be reached in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskSpec:
    """Everything an `Ask` actor is built from. Example: AskSpec(name="student", role=Solve(…), route=EngineRoute(…), …)"""

    name: str
    role: Role
    adds: Mapping[str, type]
    """Columns that the role adds, so that every block has the same schema whatever its rows hold."""
    route: Route
    model_sha: str
    run_root: str
    replies: str
    """Folder of this stage's replies below the run."""
    budget_replies: tuple[str, ...] = ()
    """Folders whose replies the budget has paid for already."""
    in_flight: int = 64
    run_seed: int = 0
    budget: BudgetConfig | None = None
    progress: Any = None
    """Handle of the driver, told how many rows are done; None: nobody is."""
    stream: str = ""
    """Names the stream to the driver: the actors of the one before may still be telling of theirs."""


class Ask:
    def __init__(self, spec: AskSpec) -> None:
        files = Files(spec.run_root)
        self._spec = spec
        self._log = ReplyLog(files, spec.replies)
        self._metrics = AskMetrics(spec.run_root, spec.name)
        self._transport = open_route(spec.route, self._metrics.retried)
        self._slots = asyncio.Semaphore(spec.in_flight)
        self._budget = Budget(spec.budget) if spec.budget else None
        if self._budget:
            for folder in spec.budget_replies:
                self._budget.replay(Reply(**record["reply"]) for record in read_replies(files, folder))
        self._done = 0
        self._open = 0
        self._stopping = False
        self._listener: asyncio.Task[None] | None = None

    async def __call__(self, block: pa.Table) -> AsyncIterator[pa.Table]:
        if self._listener is None and self._spec.progress is not None:
            self._listener = asyncio.create_task(self._listen())
        rows = block.to_pylist()
        answered = await asyncio.gather(*[self._spec.role(row, self.reply) for row in rows])
        self._done += len(rows)
        self._metrics.rows(len(rows))
        added = [pa.field(name, _ARROW[kind]) for name, kind in self._spec.adds.items()]
        schema = pa.schema([field for field in block.schema if field.name not in self._spec.adds] + added)
        yield pa.Table.from_pylist(answered, schema=schema)

    async def reply(self, request: Request) -> Reply:
        """The stored reply, or a new one, stored."""
        key = reply_key(
            model_sha=self._spec.model_sha,
            prompt_sha=request.prompt_sha,
            sampling=request.sampling,
            run_seed=self._spec.run_seed,
            row_id=request.row_id,
            ordinal=request.ordinal,
            attempt=request.attempt,
        )
        stored = self._log.find(key)
        if stored is not None:
            self._metrics.replayed()
            return stored
        async with self._slots:
            sent = time.time()
            reply = await self._asked(request)
        about = {
            "sent": sent,
            "seconds": time.time() - sent,
            "prompt_sha": request.prompt_sha,
            "sampling": dict(request.sampling),
            "row_id": request.row_id,
            "ordinal": request.ordinal,
            "attempt": request.attempt,
            "prompt": request.prompt.text or [f"{m.role}: {m.content}" for m in request.prompt.messages],
        }
        if reply.error.startswith(_PASSING):
            return reply  # a resumed run asks again
        return await self._log.put(key, reply, about)

    async def _asked(self, request: Request) -> Reply:
        if self._stopping:
            await self._drained()
        if self._budget:
            self._budget.reserve()
        self._open += 1
        self._metrics.in_flight(self._open)
        try:
            reply = await self._transport.ask(request)
        except BaseException:
            if self._budget:
                self._budget.release()
            raise
        finally:
            self._open -= 1
            self._metrics.in_flight(self._open)
        self._metrics.answered(reply)
        if self._budget:
            self._budget.spend(reply)
        return reply

    async def _drained(self) -> NoReturn:
        """Ray Data ends the whole stream at the first error, so it is raised only once nothing is in flight."""
        while self._open:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # the last replies' group commit
        raise Stopping("the run is being stopped")

    async def _listen(self) -> None:
        """Tell the driver what is done, and hear from it whether to stop."""
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            self._stopping = self._stopping or await self._spec.progress.advance.remote(
                self._spec.stream, self._spec.name, self._done
            )


def ask_stage(dataset: ray.data.Dataset, spec: AskSpec, rows_per_block: int) -> ray.data.Dataset:
    """Append one role to a stream. One actor keeps `in_flight` requests open, in blocks of `rows_per_block` rows."""
    open_blocks = max(2, -(-spec.in_flight // rows_per_block))
    return dataset.map_batches(
        Ask,
        fn_constructor_args=(spec,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=open_blocks),
        max_concurrency=open_blocks,
        num_cpus=0.1,
    )
