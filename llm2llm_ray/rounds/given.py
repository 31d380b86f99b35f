"""The teacher's role where nobody is asked (`teacher.kind: rows`): a file has new rows for each labelled one.

For comparisons with what a model writes: they pass the same gates, are counted in the same columns and carry a lineage. Nothing
is parsed, for there is no reply. `asked` counts rows looked at, and no token is spent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from llm2llm_ray.asking.json_lines import cut, read_bytes, records
from llm2llm_ray.asking.request import AskModel
from llm2llm_ray.augmentation.commit import Candidate
from llm2llm_ray.augmentation.gates import check
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.aimed import Aimed
from llm2llm_ray.rounds.augmenting import UNTOUCHED, graded
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Draft, Lineage

GivenRows = Mapping[str, Sequence[Draft]]
"""Id of a labelled row -> new rows for it, in the order in which they are taken."""
_FIELDS = ("seed", "input", "output")
_REMEDY = "give a JSONL file of rows as teacher.model"


def read_given(path: str) -> GivenRows:
    """JSONL lines {"seed": id, "input": text, "output": gold} of `teacher.model`. Raises UserError (file, line, field)."""
    found: dict[str, list[Draft]] = {}
    for where, record in records(path, read_bytes(path, _REMEDY), _REMEDY):
        seed, text, output = _row(where, record)
        found.setdefault(seed, []).append(Draft(input=text, output=output))
    if not found:
        raise UserError(f"teacher.model: {path}: no rows in it; write at least one line {{seed, input, output}}")
    return found


def check_given(path: str, known: Sequence[str]) -> None:
    """Raises UserError where the file has nothing for any of the rows with these ids."""
    given = read_given(path)
    if not given.keys() & frozenset(known):
        raise UserError(
            f"teacher.model: {path} has rows for {next(iter(given))} and others, and none for any of the {len(known)} rows that "
            "errors come from; `seed` names a row by its id"
        )


def _row(where: str, record: Mapping[str, Any]) -> tuple[str, str, str]:
    if set(record) != set(_FIELDS):
        raise UserError(f"{where}: expected an object with the fields {', '.join(_FIELDS)}, found {cut(record)}")
    for field in _FIELDS:
        if not isinstance(record[field], str):
            raise UserError(f"{where}: {field}: expected text, found {record[field]!r}")
    return record["seed"], record["input"], record["output"]


class Given(Aimed):
    """One target row in, its next `per_wrong` rows of the file out. Each row of the file is one ordinal, so that the next round
    takes the next ones."""

    def __init__(self, task: Task, rows: GivenRows, *, file: str, settings: AugmentationConfig, iteration: int) -> None:
        self._task, self._rows, self._settings = task, rows, settings
        self._name, self._iteration = f"rows:{PurePath(file).name}", iteration

    async def __call__(self, row: dict[str, Any], ask: AskModel) -> dict[str, Any]:
        if not self.is_for(row):
            return {**row, **UNTOUCHED}
        began, mistake = time.time(), graded(row)
        first = self._iteration * self._settings.per_wrong
        drafts = list(enumerate(self._rows.get(row["id"], ())))[first : first + self._settings.per_wrong]
        found: list[Candidate] = []
        rejected: list[dict[str, Any]] = []
        for ordinal, draft in drafts:
            verdict = check(draft, mistake, self._task, self._settings)
            if verdict is None:
                lineage = self._lineage(row, ordinal)
                found.append(Candidate(input=draft.input, output=draft.output, lineage=lineage, index=0))
            else:
                rejected.append(asdict(verdict) | {"ordinal": ordinal, "attempt": 0})
        return {
            **row,
            **UNTOUCHED,
            "target": True,
            "asked": len(drafts),
            "asked_from": began,
            "asked_until": time.time(),
            "candidates": json.dumps([asdict(candidate) for candidate in found]),
            "rejected": json.dumps(rejected),
        }

    def _lineage(self, row: Mapping[str, Any], ordinal: int) -> Lineage:
        return Lineage(
            seed_id=row["seed_id"] or row["id"], parent_id=row["id"], iteration=self._iteration, ordinal=ordinal, attempt=0,
            wrong_answer=row["completion"], prompt_sha="", teacher=self._name, sampling_seed=0,
        )  # fmt: skip
