"""The student's role where errors are cross-fitted: each row is answered by the student of its fold, all in one stream.

Rows come fold after fold, so the teacher writes about one fold while the student of the next answers. Nothing waits here for a
fold's end: requests name the weights they mean, and a replica takes other weights when the last request of those it holds has
ended (`EngineServer._holding`). Rows that came out of order would cost a further change of weights, and nothing else.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pyarrow as pa

from llm2llm_ray.rounds.folds import FOLD
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec, StreamRole


class ByFold:
    """`StreamRole` for a spec with `by_fold`; a fold's student stands from the fold's first row to the end of the stream."""

    def __init__(self, spec: RoleSpec) -> None:
        self._spec = spec
        self._roles: dict[int, StreamRole] = {}

    async def answer(self, block: pa.Table) -> pa.Table:
        folds = block.column(FOLD).to_pylist()
        parts = [
            self._role(fold).answer(block.take([n for n, of in enumerate(folds) if of == fold])) for fold in sorted(set(folds))
        ]
        return pa.concat_tables(await asyncio.gather(*parts))

    def close(self) -> None:
        for role in self._roles.values():
            role.close()

    def _role(self, fold: int) -> StreamRole:
        if fold not in self._roles:
            voice, beside = self._spec.by_fold[fold], next(iter(self._roles.values()), None)
            spec = replace(self._spec, route=voice.route, answerer=voice.answerer, replies=voice.replies, by_fold=())
            self._roles[fold] = StreamRole(spec, beside=beside)
        return self._roles[fold]
