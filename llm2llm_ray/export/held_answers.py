"""How to serve a student whose answers were held to choices (`evaluation.structured`), so that it answers as it did here.

The request shown is one that the run sent, about a row of the exported version; without one, a placeholder stands for the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm2llm_ray.export.markdown import json_block
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.types import DatasetVersion


def held_request(record: RunRecord, sha: str, version: DatasetVersion) -> dict[str, Any] | None:
    """A request of the OpenAI protocol as vLLM reads it, with the choices; None where this student was not held to any."""
    if not record.config["evaluation"].get("structured"):
        return None
    given = {row.id: row.input for row in record.version_rows(version) if row.origin != "augmented"}
    found: Mapping[str, Any] | None = None
    for reply in read_replies(record.files, f"replies/student-{sha[:12]}"):
        request = reply["request"]
        if "choice" not in request["sampling"]:
            continue
        found = found or request | {"prompt": "PROMPT"}
        if given.get(request["row_id"], "\0") in request["prompt"]:  # no dev or test row: those may not be part of the export
            found = request
            break
    if found is None:
        return None
    sampling = found["sampling"]
    return {
        "model": "student", "prompt": found["prompt"], "max_tokens": sampling["max_tokens"], "temperature": 0.0,
        "structured_outputs": {"choice": sampling["choice"]},
    }  # fmt: skip


def held_answers(request: Mapping[str, Any] | None) -> list[str]:
    if request is None:
        return []
    return [
        "", "## Served as it was measured", "",
        "In this run the student's answers were held to the task's choices (`evaluation.structured`), by vLLM's structured "
        "outputs: an answer is exactly one of them. Served without that it may say something else.", "",
        "```sh",
        "vllm serve FOLDER --served-model-name student",
        "curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d @request.json",
        "```",
        "", "where request.json is", "",
        *json_block(request),
    ]  # fmt: skip
