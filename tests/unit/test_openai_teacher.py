"""The OpenAI client against a real HTTP server that misbehaves in every way we know of."""

import asyncio
import json
import logging
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_rate_limit import Clock

from llm2llm_ray.asking import openai_service
from llm2llm_ray.asking.openai_service import OpenAITeacher
from llm2llm_ray.asking.rate_limit import RateLimit
from llm2llm_ray.config.teacher import RequestConfig, TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Message, Prompt, Reply

KEY = "sk-secret-0123456789"
CHAT = Prompt(messages=(Message(role="system", content="You write."), Message(role="user", content="One more.")))

Step = tuple[int, dict[str, str], str] | Callable[[], None]


def answer(content: Any = "hello", *, finish: str | None = "stop", usage: Any = "given", **message: Any) -> Step:
    body: dict[str, Any] = {
        "model": "served-name",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"content": content, **message}}],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": 11, "completion_tokens": 7} if usage == "given" else usage
    return 200, {"Content-Type": "application/json"}, json.dumps(body)


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Step:
    error = {"error": {"message": message, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(error)


class Service:
    """Plays its steps in order, the last one again and again, and records what came in."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[tuple[str, dict[str, Any], str]] = []
        self.lock = threading.Lock()
        self.url = ""

    def next_step(self, path: str, body: dict[str, Any], authorization: str) -> Step:
        with self.lock:
            self.requests.append((path, body, authorization))
            return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body, _ in self.requests]


@contextmanager
def serving(*steps: Step) -> Iterator[Service]:
    service = Service(*steps)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            step = service.next_step(self.path, body, self.headers.get("Authorization", ""))
            if callable(step):
                step()
                self.close_connection = True
                return
            status, headers, text = step
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up waiting, as it should

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The service here speaks plain HTTP; reading the world's authorities is most of what a client costs.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(__file__).parent))


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are slept while the test runs, one entry a sleep; they pass at once."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def passes(seconds: float, result: Any = None) -> Any:
        if seconds:
            found.append(seconds)
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", passes)
    return found


def teacher_of(url: str, *, deadline_s: float = 30.0, **fields: Any) -> OpenAITeacher:
    settings = {"timeout_s": 5.0, "max_retries": 3, "api_key_env": "TEACHER_KEY", **fields}
    config = TeacherConfig(kind="openai", model="big", base_url=url, **settings)
    return OpenAITeacher(config, deadline_s=deadline_s, backoff_s=0.02)


def ask(url: str, prompt: Prompt = CHAT, **fields: Any) -> Reply:
    async def go() -> Reply:
        teacher = teacher_of(url, **fields)
        try:
            return await teacher.ask(prompt, temperature=0.7, top_p=0.9, max_tokens=40, seed=17)
        finally:
            await teacher.aclose()

    return asyncio.run(go())


def probe(url: str, **fields: Any) -> None:
    async def go() -> None:
        teacher = teacher_of(url, **fields)
        try:
            await teacher.probe()
        finally:
            await teacher.aclose()

    asyncio.run(go())


def test_chat_request_and_reply() -> None:
    with serving(answer()) as service:
        reply = ask(service.url)
    path, body, authorization = service.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert body == {
        "model": "big",
        "messages": [{"role": "system", "content": "You write."}, {"role": "user", "content": "One more."}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 40,
        "seed": 17,
    }
    assert reply == Reply(text="hello", finish_reason="stop", prompt_tokens=11, completion_tokens=7, model="served-name")


def test_completion_request_and_reply() -> None:
    body = {"choices": [{"text": " sixth\n7.", "finish_reason": "length"}], "usage": {"prompt_tokens": 3}}
    with serving((200, {"Content-Type": "application/json"}, json.dumps(body))) as service:
        reply = ask(service.url, Prompt(text="1. first\n2.", stop=("\n\n", "8.")))
    path, sent, _ = service.requests[0]
    assert path == "/v1/completions"
    assert (sent["prompt"], sent["stop"]) == ("1. first\n2.", ["\n\n", "8."])
    assert (reply.text, reply.finish_reason, reply.prompt_tokens) == (" sixth\n7.", "length", 3)
    assert reply.completion_tokens == 3  # not counted by the service: a quarter of the characters


def test_fields_are_left_out_and_added_as_the_config_says() -> None:
    request = RequestConfig(drop=("seed", "top_p", "stop"), add={"top_k": 20, "reasoning": {"effort": "low"}})
    with serving(answer()) as service:
        ask(service.url, replace(CHAT, stop=("###",)), request=request)
    assert service.bodies[0] == {
        "model": "big",
        "messages": [{"role": "system", "content": "You write."}, {"role": "user", "content": "One more."}],
        "temperature": 0.7,
        "max_tokens": 40,
        "top_k": 20,
        "reasoning": {"effort": "low"},
    }
    with serving(answer()) as service:
        ask(service.url, Prompt(text="1. first"), request=RequestConfig(drop=("max_tokens",), add={"max_new_tokens": 9}))
    assert service.bodies[0] == {
        "model": "big", "prompt": "1. first", "temperature": 0.7, "top_p": 0.9, "seed": 17, "max_new_tokens": 9,
    }  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_seconds(status: int, waited: list[float]) -> None:
    with serving(failure(status, Retry_After="40"), answer()) as service:
        assert ask(service.url, deadline_s=90.0).text == "hello"
    (seconds,) = waited
    assert 40 <= seconds <= 40.02  # and up to 0.02 of jitter


def test_retry_after_date(waited: list[float]) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    with serving(failure(429, Retry_After=when), answer()) as service:
        assert ask(service.url, deadline_s=3 * 3600.0).text == "hello"
    (seconds,) = waited
    assert 3600 < seconds < 7201  # in any time zone but UTC it would be another whole hour


@pytest.mark.parametrize("value", ["soon", "", "nan", "inf", "-3", "Tue, 99 Foo 2026"])
def test_retry_after_without_sense_is_ignored(value: str, waited: list[float]) -> None:
    with serving(failure(429, Retry_After=value), answer()) as service:
        assert ask(service.url).text == "hello"
    assert len(waited) == 1 and waited[0] <= 0.02  # the backoff


def test_retry_after_beyond_the_deadline_gives_up_at_once(waited: list[float]) -> None:
    with serving(failure(429, "slow down", Retry_After="3600")) as service:
        reply = ask(service.url, deadline_s=5.0)
    assert waited == []
    assert reply.error == "unavailable: HTTP 429: slow down (tried 1 times)"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_transient_statuses_are_tried_again(status: int) -> None:
    with serving(failure(status), failure(status), answer()) as service:
        assert ask(service.url).text == "hello"
    assert len(service.requests) == 3


def test_retries_are_bounded_and_the_row_gets_an_error() -> None:
    with serving(failure(500, "boom")) as service:
        reply = ask(service.url, max_retries=2)
    assert len(service.requests) == 3
    assert (reply.finish_reason, reply.text) == ("error", "")
    assert reply.error.startswith("unavailable: HTTP 500") and reply.error.endswith("(tried 3 times)")


def test_no_answer_within_the_timeout() -> None:
    with serving(lambda: time.sleep(1.0), answer()) as service:
        assert ask(service.url, timeout_s=0.5).text == "hello"
    with serving(lambda: time.sleep(0.3)) as service:
        assert ask(service.url, timeout_s=0.1, max_retries=1).error == ("unavailable: no answer within 0.1 s (tried 2 times)")


def test_a_dropped_connection_is_tried_again() -> None:
    with serving(lambda: None, answer()) as service:
        assert ask(service.url).text == "hello"


@pytest.mark.parametrize("text", ["<html>busy</html>", '{"choices": [', "", '"text"', "{}", '{"choices": ["x"]}'])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_garbage_is_tried_again(text: str, kind: str) -> None:
    with serving((200, {"Content-Type": kind}, text), answer()) as service:
        assert ask(service.url).text == "hello"
    with serving((200, {"Content-Type": kind}, text)) as service:
        assert ask(service.url, max_retries=0).error.startswith("unavailable: not an answer: ")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_the_rows_error(status: int) -> None:
    with serving(failure(status, "context length is 4096")) as service:
        reply = ask(service.url)
    assert len(service.requests) == 1
    assert reply.error.startswith(f"bad_request: HTTP {status}") and "context length is 4096" in reply.error


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (401, None, "check the key in TEACHER_KEY"),
        (403, None, "check the key in TEACHER_KEY"),
        (404, "model_not_found", "check teacher.model big"),
        (429, "insufficient_quota", "add credit"),
    ],
)
def test_what_no_other_row_can_mend_stops_the_run(status: int, code: str | None, remedy: str) -> None:
    for act in (ask, probe):
        with serving(failure(status, "no", code)) as service, pytest.raises(UserError) as error:
            act(service.url)
        assert len(service.requests) == 1
        assert service.url in str(error.value) and remedy in str(error.value)


def test_the_newer_name_of_max_tokens() -> None:
    refusal = failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    with serving(refusal, answer()) as service:
        assert ask(service.url).text == "hello"
    assert [("max_tokens" in b, "max_completion_tokens" in b) for b in service.bodies] == [(True, False), (False, True)]
    with serving(refusal) as service:
        assert ask(service.url).error.startswith("bad_request: ")
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (answer(None), "no_content: finish_reason stop"),
        (answer(None, finish="length", reasoning_content="hm"), "no_content: only reasoning, finish_reason length"),
        (answer("half a te", finish="content_filter"), "content_filter"),
        ((200, {"Content-Type": "application/json"}, '{"choices": [], "usage": {"prompt_tokens": 11}}'), "no_choices"),
    ],
)
def test_answers_without_usable_text(step: Step, error: str) -> None:
    with serving(step) as service:
        reply = ask(service.url)
    assert (reply.text, reply.finish_reason, reply.error) == ("", "error", error)
    assert reply.prompt_tokens == 11  # it was paid for
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("step", "text", "reasoning"),
    [
        (answer("<think>hm</think>hello"), "hello", "hm"),
        (answer("hello", reasoning_content="hm"), "hello", "hm"),
        (answer("hello", reasoning="hm"), "hello", "hm"),
        (answer("<think>hm", finish="length"), "", "hm"),
        (answer([{"type": "thinking", "thinking": []}, {"type": "text", "text": "hello"}]), "hello", ""),
    ],
)
def test_reasoning_is_kept_apart(step: Step, text: str, reasoning: str) -> None:
    with serving(step) as service:
        reply = ask(service.url)
    assert (reply.text, reply.reasoning, reply.error) == (text, reasoning, "")


@pytest.mark.parametrize("finish", ["stop", None, "eos"])
def test_other_names_of_a_normal_end(finish: str | None) -> None:
    with serving(answer(finish=finish)) as service:
        assert ask(service.url).finish_reason == "stop"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": "7"}])
def test_missing_usage_is_estimated_and_said_so_once(usage: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def go(url: str) -> tuple[list[Reply], int]:
        teacher = teacher_of(url)
        asked = [await teacher.ask(CHAT, temperature=1, top_p=1, max_tokens=9, seed=n) for n in range(2)]
        await teacher.aclose()
        return asked, teacher.estimated_usage

    with serving(answer("x" * 40, usage=usage)) as service, caplog.at_level(logging.WARNING):
        replies, estimated = asyncio.run(go(service.url))
    assert [(r.prompt_tokens, r.completion_tokens) for r in replies] == [(5, 10)] * 2
    assert estimated == 2
    assert len([r for r in caplog.records if "estimates" in r.getMessage()]) == 1


def test_retries_wait_for_the_rate_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # 60 a minute: six at once, then one a second; five requests of which two are made twice are seven.
    clock = Clock()
    monkeypatch.setattr(openai_service, "RateLimit", partial(RateLimit, clock=clock, sleep=clock.sleep))

    async def go(url: str) -> None:
        teacher = teacher_of(url, requests_per_minute=60)
        one = [teacher.ask(CHAT, temperature=1, top_p=1, max_tokens=9, seed=n) for n in range(5)]
        await asyncio.gather(*one)
        await teacher.aclose()

    began = clock.now
    with serving(failure(500), failure(500), answer()) as service:
        asyncio.run(go(service.url))
    assert len(service.requests) == 7
    assert clock.now - began == pytest.approx(1.0)


def test_probe_takes_the_path_of_the_style_and_accepts_a_busy_service() -> None:
    with serving(answer(None, finish="length")) as service:
        probe(service.url)
        probe(service.url, style="completion")
    assert [path for path, *_ in service.requests] == ["/v1/chat/completions", "/v1/completions"]
    with serving(failure(429)) as service:
        probe(service.url)
    with serving(failure(400, "max_tokens or model output limit was reached")) as service:
        probe(service.url)


def test_probe_names_an_address_where_nobody_answers() -> None:
    with serving(answer()) as service:
        url = service.url
    with pytest.raises(UserError) as error:
        probe(url)
    assert f"teacher.base_url {url}: unreachable" in str(error.value) and "is the service running" in str(error.value)


def test_probe_says_what_the_service_refused() -> None:
    with serving(failure(400, "temperature must be 1")) as service, pytest.raises(UserError) as error:
        probe(service.url)
    assert "temperature must be 1" in str(error.value)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_the_variable(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY")
    if value is not None:
        monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(UserError, match="the environment variable TEACHER_KEY is not set"):
        teacher_of("http://127.0.0.1:9/v1")


@pytest.mark.parametrize("value", ["sk-sec ret", "sk-sec\nret", "sk-sécret"])
def test_a_key_that_is_none_is_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(UserError, match="the value of TEACHER_KEY is no key") as error:
        teacher_of("http://127.0.0.1:9/v1")
    assert "sk-" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_the_key_appears_nowhere(status: int, caplog: pytest.LogCaptureFixture) -> None:
    echo = failure(status, f"Incorrect key {KEY} given, Bearer {KEY}")
    seen: list[str] = []
    with serving(echo) as service, caplog.at_level(logging.DEBUG):
        for act in (ask, probe):
            try:
                seen.append(repr(act(service.url, max_retries=1)))
            except UserError as error:
                chain: BaseException | None = error
                while chain is not None:
                    seen += traceback.format_exception(chain)
                    seen += [repr(vars(chain)), repr(pickle.dumps(chain))]
                    chain = chain.__cause__ or chain.__context__
        seen.append(repr(teacher_of(service.url)))
    assert len(seen) >= 3 and any("[key]" in text for text in seen)
    # The HTTP libraries' own debug records are on; theirs must not hold it either.
    assert KEY not in "".join(seen) + caplog.text
