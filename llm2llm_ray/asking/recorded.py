"""Recorded replies: a teacher's replies in a file, a JSON line each, to be read instead of asked for (docs/recorded-replies.md).

Keeps: a reply is found by what was asked (prompt, ordinal, attempt), never by a run's seed or a row's name, so any run that asks
the same may use the file. A file is known by the sha of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from llm2llm_ray.asking.json_lines import cut, read_bytes, records
from llm2llm_ray.asking.no_answer import NOT_RECORDED
from llm2llm_ray.asking.request import Request
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint
from llm2llm_ray.types import Message, Prompt, Reply

FORMAT = 1
SAMPLING = ("temperature", "top_p", "max_tokens", "seed")
_HEADER = {"llm2llm_replies", "model", "made"}
_FIELDS = {
    "prompt", "ordinal", "attempt", "sampling", "reply", "finish_reason", "prompt_tokens", "completion_tokens", "model",
    "weights_sha", "error",
}  # fmt: skip
_ROLES = ("system", "user", "assistant")
REMEDY = "give a file as `llm2llm export RUN --replies FILE` writes it"
_KINDS: Mapping[type, str] = {str: "text", dict: "an object", list: "a list", int: "a whole number from 0"}

Place = tuple[str, int, int]
"""(prompt_sha, ordinal, attempt): what a reply is found by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One line of a file. Settings of `sampling` that are not known are None."""

    place: Place
    sampling: Mapping[str, float | int | None]
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a file says of itself. Example: About(file="data/replies.jsonl", sha="5f…", model="a model", made="…", replies=256)"""

    file: str
    """As the user named it."""
    sha: str
    model: str
    """Of its header, else of its lines; "" when neither says."""
    made: str
    replies: int

    def __str__(self) -> str:
        return f"recorded replies of {self.model or 'an unnamed model'}, {self.file}"


class RecordedReplies:
    """The replies of a file, in memory: some 500 bytes each beside their text; prompts are not kept."""

    def __init__(self, file: str, data: bytes) -> None:
        """`data`: the file's bytes, gzipped or not. Raises UserError (file, line, field, value, remedy)."""
        self._lines: dict[Place, list[Recorded]] = {}
        header: Mapping[str, Any] = {}
        first: dict[tuple[Any, ...], tuple[str, Recorded]] = {}
        for number, (where, record) in enumerate(records(file, data, REMEDY)):
            if number == 0 and "llm2llm_replies" in record:
                header = _header(where, record)
                continue
            found = _recorded(where, record)
            same = (found.place, *found.sampling.values(), found.reply.model, found.reply.weights_sha)
            before, standing = first.setdefault(same, (where, found))
            if standing is found:
                self._lines.setdefault(found.place, []).append(found)
            elif standing != found:
                raise UserError(
                    f"{where}: reply: another one than in line {before.rpartition(':')[2]} to the same prompt, ordinal, attempt, "
                    "sampling and model; remove one of the two lines, or give them other ordinals or attempts"
                )
        models = sorted({line.reply.model for line in self._all() if line.reply.model})
        self.about = About(
            file=file, sha=hashlib.sha256(data).hexdigest(), model=header.get("model") or ", ".join(models),
            made=header.get("made", ""), replies=sum(1 for _ in self._all()),
        )  # fmt: skip
        if not self.about.replies:
            raise UserError(f"{file}: no replies in it; {REMEDY}")

    def __contains__(self, request: Request) -> bool:
        return place_of(request) in self._lines

    def find(self, place: Place, sampling: Mapping[str, Any]) -> Reply:
        """The reply to what was asked there, whatever `sampling` says; an error reply, `not_recorded`, where there is none.

        Of several, that whose sampling is most like the one asked for; of those the first.
        """
        lines = self._lines.get(place)
        if lines is None:
            _, ordinal, attempt = place
            error = f"{NOT_RECORDED}: {self.about.file} has no reply to this prompt at ordinal {ordinal}, attempt {attempt}"
            return Reply(text="", finish_reason="error", error=error, model=self.about.model)
        return max(lines, key=lambda line: _alike(line.sampling, sampling)).reply

    def find_same(self, request: Request, *, model: str, weights_sha: str) -> Reply | None:
        """The reply of this very model to this very request, sampled as asked, or None. What a file leaves open is not the same,
        and no file says what an answer was held to (`choice`).

        `weights_sha`: of an engine's weights, which then stand for its name; "" for a service.
        """
        if request.sampling.keys() - set(SAMPLING):
            return None
        for line in self._lines.get(place_of(request), ()):
            same = line.reply.weights_sha == weights_sha if weights_sha else line.reply.model == model
            if same and _alike(line.sampling, request.asked_with) == len(SAMPLING):
                return line.reply
        return None

    def _all(self) -> Iterator[Recorded]:
        for lines in self._lines.values():
            yield from lines


def read_recorded(path: str) -> RecordedReplies:
    """Of a file on this machine. Raises UserError (file, line, field, value, remedy)."""
    return RecordedReplies(path, read_bytes(path, REMEDY))


def place_of(request: Request) -> Place:
    return (request.prompt_sha, request.ordinal, request.attempt)


def lineage_name(file: str) -> str:
    """Who a row is by whose reply names no model."""
    return f"recorded:{PurePath(file).name}"


def written_prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a line holds it: {"messages": [{"role": …, "content": …}, …]} or {"text": …}, and "stop" where it has one."""
    told: dict[str, Any] = {"messages": [asdict(m) for m in prompt.messages]} if prompt.messages else {"text": prompt.text}
    return told | ({"stop": list(prompt.stop)} if prompt.stop else {})


def written_header(*, model: str, made: str) -> str:
    return json.dumps({"llm2llm_replies": FORMAT, "model": model, "made": made})


def written_line(
    prompt: Mapping[str, Any], *, ordinal: int, attempt: int, sampling: Mapping[str, Any], reply: Reply, model: str
) -> str:
    """One line, without its end; ASCII, so that half a surrogate pair in a model's text survives. `prompt` as `written_prompt`
    gives it; `model` is the one that was asked for."""
    told: dict[str, Any] = {
        "prompt": prompt, "ordinal": ordinal, "attempt": attempt, "sampling": {name: sampling.get(name) for name in SAMPLING},
        "reply": reply.text, "finish_reason": reply.finish_reason, "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens, "model": model,
    }  # fmt: skip
    told |= {name: value for name in ("weights_sha", "error") if (value := getattr(reply, name))}
    return json.dumps(told, separators=(",", ":"))


def _alike(ours: Mapping[str, Any], asked: Mapping[str, Any]) -> int:
    return sum(ours[name] is not None and ours[name] == asked.get(name) for name in SAMPLING)


def _header(where: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    if record["llm2llm_replies"] != FORMAT:
        raise UserError(f"{where}: llm2llm_replies: expected {FORMAT}, found {cut(record['llm2llm_replies'])}; {REMEDY}")
    _known(where, record, _HEADER)
    return {name: _field(where, record, name, str, default="") for name in ("model", "made")}


def _recorded(where: str, record: Mapping[str, Any]) -> Recorded:
    _known(where, record, _FIELDS)
    error = _field(where, record, "error", str, default="")
    finish = _field(where, record, "finish_reason", str, default="error" if error else "stop")
    if finish not in (("error",) if error else ("stop", "length")):
        wanted = "error beside an error" if error else "stop or length"
        raise UserError(f"{where}: finish_reason: write {wanted}, found {cut(finish)}")
    place = (
        prompt_sha_of(_field(where, record, "prompt", dict), where), _field(where, record, "ordinal", int, default=0),
        _field(where, record, "attempt", int, default=0),
    )  # fmt: skip
    reply = Reply(
        text=_field(where, record, "reply", str, default="" if error else None),
        finish_reason=finish,
        prompt_tokens=_field(where, record, "prompt_tokens", int, default=0),
        completion_tokens=_field(where, record, "completion_tokens", int, default=0),
        model=_field(where, record, "model", str, default=""),
        weights_sha=_field(where, record, "weights_sha", str, default=""),
        error=error,
    )
    return Recorded(place=place, sampling=_sampling(where, record), reply=reply)


def prompt_sha_of(told: Mapping[str, Any], where: str = "prompt") -> str:
    """The name of a prompt as `written_prompt` writes it, the same as the request's. Raises UserError for what is none."""
    _known(f"{where}: prompt", told, {"messages", "text", "stop"})
    holds = [name for name in ("messages", "text") if told.get(name)]
    if len(holds) > 1 or (not holds and "text" not in told):
        raise UserError(f"{where}: prompt: expected either messages or text, found {cut(told)}")
    messages = []
    for message in _field(f"{where}: prompt", told, "messages", list, default=[]):
        if not isinstance(message, dict) or message.keys() != {"role", "content"} or message["role"] not in _ROLES:
            raise UserError(
                f"{where}: prompt: messages: expected objects of a role ({', '.join(_ROLES)}) and a content, found {cut(message)}"
            )
        messages.append(Message(role=message["role"], content=_field(f"{where}: prompt: messages", message, "content", str)))
    stop = _field(f"{where}: prompt", told, "stop", list, default=[])
    if not all(isinstance(word, str) for word in stop):
        raise UserError(f"{where}: prompt: stop: expected a list of texts, found {cut(stop)}")
    text = _field(f"{where}: prompt", told, "text", str, default="")
    try:
        return fingerprint(asdict(Prompt(messages=tuple(messages), text=text, stop=tuple(stop))))
    except UnicodeEncodeError:
        raise UserError(f"{where}: prompt: holds half of a surrogate pair, which no request can; {REMEDY}") from None


def _sampling(where: str, record: Mapping[str, Any]) -> dict[str, float | int | None]:
    told = _field(where, record, "sampling", dict, default={})
    _known(f"{where}: sampling", told, set(SAMPLING))
    for name, value in told.items():
        kinds = (int,) if name in ("max_tokens", "seed") else (int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise UserError(f"{where}: sampling: {name}: expected a number or null, found {cut(value)}")
    return {name: told.get(name) for name in SAMPLING}


def _field(where: str, record: Mapping[str, Any], name: str, kind: type, *, default: Any = None) -> Any:
    """`default` None: the field must be there. `null` stands for a field that is not there."""
    value: Any = record.get(name)
    value = default if value is None else value
    if value is None:
        raise UserError(f"{where}: {name}: required, but missing; {REMEDY}")
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        told = _KINDS[kind]
        raise UserError(f"{where}: {name}: expected {told}, found {cut(value)}")
    return value


def _known(where: str, record: Mapping[str, Any], known: set[str]) -> None:
    for name in sorted(set(record) - known):
        raise UserError(f"{where}: {cut(name)}: unknown field; known here: {', '.join(sorted(known))}")
