"""A teacher and a student that answer from a file: for tests, and for trying out a task of your own without a model.

Keeps: an answer depends only on what was asked (prompt and seed; prompt and generation), never on earlier calls, so a
run that was interrupted and continued is the run that was not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm2llm_ray.asking.json_lines import read_bytes, records
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.types import Prompt, Reply

_REMEDY = "give a JSONL file of scripted replies"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    match: str
    reply: str
    finish_reason: str


class ScriptedTeacher:
    """Replies from JSONL lines {"reply": "…", "match": "part of the prompt", "finish_reason": "stop"}.

    Lines whose `match` is in the prompt win over lines without one, a longer match over a shorter. Of several lines
    with the same match, number `seed % n` answers; of those without a match, one chosen by prompt and seed.
    """

    def __init__(
        self,
        replies: str | Path | Iterable[Mapping[str, Any]],
        latency_s: float = 0.0,
        log_path: str | Path | None = None,
    ) -> None:
        """`latency_s`: service time of a call. `log_path`: every call is appended there: {prompt_sha, seed, time}.

        Raises UserError (file, line, field) on a bad script.
        """
        self._lines = [_teacher_line(where, record) for where, record in _records(replies)]
        if not self._lines:
            raise UserError(f"{_name(replies)}: no replies in it; write at least one line with a reply")
        self._model = f"scripted:{_name(replies)}"
        self._latency_s = latency_s
        self._log_path = log_path

    async def ask(self, prompt: Prompt, *, temperature: float, top_p: float, max_tokens: int, seed: int) -> Reply:
        """The scripted reply, or an error reply if no line fits. Of the settings, only `seed` changes anything."""
        text = _text(prompt)
        self._log(prompt, seed)
        await asyncio.sleep(self._latency_s)
        line = self._choose(text, seed)
        if line is None:
            return Reply(text="", finish_reason="error", error="no_scripted_reply", model=self._model)
        return Reply(
            text=line.reply,
            finish_reason=line.finish_reason,
            prompt_tokens=len(text.split()),
            completion_tokens=len(line.reply.split()),
            model=self._model,
        )

    def _choose(self, text: str, seed: int) -> _Line | None:
        matching = [line for line in self._lines if line.match and line.match in text]
        if matching:
            longest = max(matching, key=lambda line: len(line.match)).match
            same = [line for line in matching if line.match == longest]
            return same[seed % len(same)]
        free = [line for line in self._lines if not line.match]
        if not free:
            return None
        digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
        return free[int.from_bytes(digest[:8]) % len(free)]

    def _log(self, prompt: Prompt, seed: int) -> None:
        if self._log_path is None:
            return
        line = json.dumps({"prompt_sha": fingerprint(asdict(prompt)), "seed": seed, "time": time.time()})
        # One write to an O_APPEND file: lines of several processes do not mix, and a kill leaves no half line behind.
        file = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)


def script_sha(path: str) -> str:
    """sha256 of a script's content: what its answers go by, wherever it lies. Raises UserError when it cannot be read."""
    return hashlib.sha256(read_bytes(path, _REMEDY)).hexdigest()


def check_unchanged(path: str, sha: str) -> None:
    """Raises UserError when this is not the file that the run was started with: its answers would go under the other's key."""
    if script_sha(path) != sha:
        raise UserError(f"{path}: not the file that this run was started with; start the run again to use it as it is now")


class ScriptedStudent:
    """Recorded answers from JSONL lines {"input": "the prompt, or part of it", "answers": ["of M^0", "of M^1", …]}."""

    def __init__(self, answers: str | Path | Iterable[Mapping[str, Any]]) -> None:
        """Raises UserError (file, line, field) on a bad script."""
        self._answers = dict(_student_line(where, record) for where, record in _records(answers))

    def answer(self, prompt: str, generation: int) -> str:
        """What the student of this generation says; the last recorded answer stands for all later ones.

        A line that is the whole prompt wins over one that is part of it, a longer part over a shorter; no line: "".
        """
        known = prompt if prompt in self._answers else None
        if known is None:
            known = max((part for part in self._answers if part in prompt), key=len, default=None)
        if known is None:
            return ""
        recorded = self._answers[known]
        return recorded[min(generation, len(recorded) - 1)]


def _text(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages) or prompt.text


def _name(source: object) -> str:
    return Path(source).name if isinstance(source, str | Path) else "script"


def _records(source: str | Path | Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(where, record) of every line, for error messages."""
    if not isinstance(source, str | Path):
        yield from ((f"reply {number}", record) for number, record in enumerate(source, start=1))
        return
    yield from records(str(source), read_bytes(source, _REMEDY), _REMEDY)


def _teacher_line(where: str, record: Mapping[str, Any]) -> _Line:
    _check(where, record, required={"reply"}, known={"reply", "match", "finish_reason"})
    line = _Line(**{"match": "", "finish_reason": "stop", **record})
    for field, value in asdict(line).items():
        if not isinstance(value, str):
            raise UserError(f"{where}: {field}: expected text, found {value!r}")
    if line.finish_reason not in ("stop", "length"):
        raise UserError(f"{where}: finish_reason: write stop or length, found {line.finish_reason!r}")
    return line


def _student_line(where: str, record: Mapping[str, Any]) -> tuple[str, list[str]]:
    _check(where, record, required={"input", "answers"}, known={"input", "answers"})
    text, answers = record["input"], record["answers"]
    if not isinstance(text, str) or not text:
        raise UserError(f"{where}: input: expected text, found {text!r}")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{where}: answers: expected a list of texts, at least one, found {answers!r}")
    return text, answers


def _check(where: str, record: Mapping[str, Any], *, required: set[str], known: set[str]) -> None:
    for field in sorted(required - set(record)):
        raise UserError(f"{where}: {field}: required, but missing")
    for field in sorted(set(record) - known):
        raise UserError(f"{where}: {field}: unknown field; known here: {', '.join(sorted(known))}")
