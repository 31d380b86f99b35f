"""What a study leaves in its folder: the table as JSON, every graded row as Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm2llm_ray.storage.files import Files
from llm2llm_ray.study.table import StudyTable

TABLE, ROWS = "study.json", "rows.parquet"
SCHEMA: Any = pa.schema(
    [
        pa.field("cell", pa.string()), pa.field("method", pa.string()), pa.field("draw", pa.int64()),
        pa.field("run_seed", pa.int64()), pa.field("size", pa.int64()), pa.field("who", pa.string()),
        pa.field("row_id", pa.string()), pa.field("gold", pa.string()), pa.field("answer", pa.string()),
        pa.field("right", pa.bool_()), pa.field("unanswered", pa.bool_()),
    ]
)  # fmt: skip
"""`who`: untrained, baseline, kept (what the method came to), teacher. `answer` is null where none was found."""


def keep(files: Files, table: StudyTable, rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Where they are now. What was there is replaced."""
    files.replace(TABLE, json.dumps(_without_nan(table.told()), indent=1).encode())
    with pa.BufferOutputStream() as sink:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), sink)
        files.replace(ROWS, sink.getvalue().to_pybytes())
    return files.absolute(TABLE), files.absolute(ROWS)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: _without_nan(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inside) for inside in value]
    return None if isinstance(value, float) and math.isnan(value) else value
