"""A role as an operator of a Ray Data stream: the UDF only hands blocks to the role's `Asker` and takes them back.

Imports little on purpose: Ray Data starts a new process for it in every stream.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pyarrow as pa
import ray
import ray.data

from llm2llm_ray.runtime.priority import stands


class RoleOperator:
    def __init__(self, asker: Any, stream: str, role: str, spec: list[Any], following: tuple[Any, str] | None) -> None:
        self._asker, self._stream, self._role, self._spec, self._following = asker, stream, role, spec, following
        asker.begin.remote(stream, role, spec)
        stands()

    async def __call__(self, block: pa.Table) -> AsyncIterator[pa.Table]:
        if self._following is not None:
            # The teacher's process may come seconds after the student's, and all answers of a small set would be there by then.
            asker, role = self._following
            await asker.begun.remote(self._stream, role)
            self._following = None
        yield await self._asker.answer.remote(self._stream, self._role, self._spec, block)


def add_role(dataset: ray.data.Dataset, spec: Any, asking_per_block: int, following: Any = None) -> ray.data.Dataset:
    """Append one role (an `RoleSpec`): `in_flight` requests open at once, in blocks of which `asking_per_block` rows ask.

    It begins when `following`, the role after it, has begun.
    """
    # A block stays until its slowest row is answered and stored, and the larger it is, the longer it waits for one of many. So
    # more rows are held than would fill the open requests: a slot that falls free finds one waiting, however answers differ.
    held = spec.in_flight * max(2, math.isqrt(asking_per_block))
    open_blocks = max(2, -(-held // asking_per_block))
    return dataset.map_batches(
        RoleOperator,
        fn_constructor_args=(
            spec.asker,
            spec.stream,
            spec.name,
            [ray.put(spec)],
            following and (following.asker, following.name),
        ),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=open_blocks),
        max_concurrency=open_blocks,
        num_cpus=0.1,
    )
