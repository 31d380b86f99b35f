"""The process in which streams ask: an `Asker` for each model, as long as the run. Ray Data reaches it through `add_role`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray

from llm2llm_ray.runtime.environment import SERVE, values
from llm2llm_ray.runtime.priority import stands
from llm2llm_ray.runtime.streaming.by_fold import ByFold
from llm2llm_ray.runtime.streaming.stream_role import Line, StreamRole

_BEGIN_S = 60.0


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
        self._roles: dict[str, asyncio.Future[StreamRole | ByFold]] = {}
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

    def _role(self, stream: str, role: str, spec: Sequence[Any]) -> asyncio.Future[StreamRole | ByFold]:
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

    async def _made(self, spec: Any) -> StreamRole | ByFold:
        spec = await spec
        if spec.by_fold:
            return ByFold(spec)
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
