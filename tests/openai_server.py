"""An OpenAI-compatible service on loopback, for tests: answers as it is told, misbehaves as it is told, and keeps what came in.

A thread of the test's process, so other processes (Ray's too) reach it at `url`. What it says is decided by a function of the
request (`Asked`); `steps`, `after`, `when` and `strict` make such functions, `by_prompt_and_seed` one that says the same to the
same request whenever it comes.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JSON = "application/json"


@dataclass(frozen=True)
class Asked:
    """One request: `number` counts from 1 in the order of arrival."""

    number: int
    path: str
    body: dict[str, Any]
    authorization: str

    @property
    def text(self) -> str:
        """All that the model would read."""
        return "\n".join(message["content"] for message in self.body.get("messages", ())) or self.body.get("prompt", "")


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = JSON


@dataclass(frozen=True)
class Silence:
    """No answer: the connection is closed after so many seconds."""

    seconds: float = 0.0


Respond = Callable[[Asked], Answer | Silence]


# What it can say.


def answer(
    content: Any = "hello", *, finish: str | None = "stop", usage: Any = "given", choice: Any = None, **message: Any
) -> Answer:
    """A chat completion; `usage` is left out for None, `choice` holds more fields of the choice."""
    body: dict[str, Any] = {
        "model": "served-name",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"content": content, **message}, **(choice or {})}],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": 11, "completion_tokens": 7} if usage == "given" else usage
    return Answer(200, json.dumps(body))


def completion(text: str, finish: str = "stop") -> Answer:
    """A text completion."""
    return Answer(200, json.dumps({"model": "served-name", "choices": [{"text": text, "finish_reason": finish}]}))


def failure(status: int, message: str = "no", code: str | None = None, param: str | None = None, **headers: str) -> Answer:
    """OpenAI's form of an error; headers are given as Retry_After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps({"error": {"message": message, "code": code, "param": param}}), named)


def not_permitted(name: str) -> Answer:
    """FastAPI's form: the field is in `loc` only."""
    detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
    return Answer(422, json.dumps({"detail": detail}))


# When it says what.


def steps(*answers: Answer | Silence) -> Respond:
    """In this order, the last one again and again."""
    return lambda asked: answers[min(asked.number, len(answers)) - 1]


def after(count: int, then: Answer | Silence, before: Respond) -> Respond:
    """`then` from request `count` + 1 on. Example: after(40, failure(401, "revoked"), by_prompt_and_seed(texts))"""
    return lambda asked: then if asked.number > count else before(asked)


def when(part: str, then: Answer | Silence, otherwise: Respond) -> Respond:
    """`then` for requests whose text holds `part`."""
    return lambda asked: then if part in asked.text else otherwise(asked)


def by_prompt_and_seed(texts: Sequence[str] | Callable[[Asked], Sequence[str]]) -> Respond:
    """One of the texts, chosen by prompt and seed alone; a function may choose which are possible for a request."""

    def respond(asked: Asked) -> Answer:
        possible = texts(asked) if callable(texts) else texts
        digest = hashlib.sha256(f"{asked.body.get('seed')}\n{asked.text}".encode()).digest()
        text = possible[int.from_bytes(digest[:8]) % len(possible)]
        return answer(text) if "messages" in asked.body else completion(text)

    return respond


def strict(otherwise: Respond, *, forbids: Sequence[str] = (), system: bool = True, both: bool = True) -> Respond:
    """A service that refuses the fields in `forbids` (422), a system message unless `system`, and temperature beside top_p
    unless `both` (400)."""

    def respond(asked: Asked) -> Answer | Silence:
        for name in forbids:
            if name in asked.body:
                return not_permitted(name)
        if not system and any(message["role"] == "system" for message in asked.body.get("messages", ())):
            return failure(400, "System role not supported")
        if not both and {"temperature", "top_p"} <= set(asked.body):
            return failure(400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
        return otherwise(asked)

    return respond


# The service itself.


class Service:
    def __init__(self, respond: Respond) -> None:
        self.url = ""
        """What teacher.base_url is set to."""
        self.requests: list[Asked] = []
        self._respond = respond
        self._lock = threading.Lock()

    def heard(self, path: str, body: dict[str, Any], authorization: str) -> Answer | Silence:
        with self._lock:
            asked = Asked(len(self.requests) + 1, path, body, authorization)
            self.requests.append(asked)
        return self._respond(asked)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.requests]


@contextmanager
def serving(respond: Respond | Answer | Silence, *more: Answer | Silence, certificate: Path | None = None) -> Iterator[Service]:
    """A running service: a function of the request, or the answers of `steps`. `certificate`: PEM file with key; then by TLS."""
    service = Service(respond if callable(respond) else steps(respond, *more))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = service.heard(self.path, body, self.headers.get("Authorization", ""))
            if isinstance(said, Silence):
                time.sleep(said.seconds)
                self.close_connection = True
                return
            try:
                self.send_response(said.status)
                told = {"Content-Type": said.kind, **said.headers, "Content-Length": str(len(said.text.encode()))}
                for name, value in told.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said.text.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up waiting, as it should

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that refuses our certificate

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    service.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
