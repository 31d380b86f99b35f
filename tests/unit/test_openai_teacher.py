"""The OpenAI client against a real HTTP server that misbehaves in every way we know of."""

import asyncio
import json
import logging
import pickle
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openai_server import Answer, Respond, Silence, answer, by_prompt_and_seed, failure, serving, strict
from test_rate_limit import Clock

from llm2llm_ray.asking import openai_service
from llm2llm_ray.asking.openai_service import OpenAITeacher
from llm2llm_ray.asking.rate_limit import RateLimit
from llm2llm_ray.asking.request import Request
from llm2llm_ray.config.teacher import RequestConfig, TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Message, Prompt, Reply

KEY = "sk-secret-0123456789"
CHAT = Prompt(messages=(Message(role="system", content="You write."), Message(role="user", content="One more.")))


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


SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 40, "seed": 17}


def probe(url: str, *prompts: Prompt, **fields: Any) -> None:
    """A probe before a run with these settings, one row for each prompt."""

    async def go() -> None:
        teacher = teacher_of(url, **fields)
        rows = enumerate(prompts or [CHAT])
        try:
            await teacher.probe([Request(row_id=f"s-{n}", prompt=prompt, sampling=SAMPLING) for n, prompt in rows])
        finally:
            await teacher.aclose()

    asyncio.run(go())


def refused_probe(url: str, *prompts: Prompt, **fields: Any) -> str:
    with pytest.raises(UserError) as error:
        probe(url, *prompts, **fields)
    return str(error.value)


def test_chat_request_and_reply() -> None:
    with serving(answer()) as service:
        reply = ask(service.url)
    asked, body = service.requests[0], service.bodies[0]
    assert (asked.path, asked.authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
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
    with serving(Answer(200, json.dumps(body))) as service:
        reply = ask(service.url, Prompt(text="1. first\n2.", stop=("\n\n", "8.")))
    sent = service.bodies[0]
    assert service.requests[0].path == "/v1/completions"
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
    with serving(Silence(1.0), answer()) as service:
        assert ask(service.url, timeout_s=0.5).text == "hello"
    with serving(Silence(0.3)) as service:
        assert ask(service.url, timeout_s=0.1, max_retries=1).error == ("unavailable: no answer within 0.1 s (tried 2 times)")


def test_a_dropped_connection_is_tried_again() -> None:
    with serving(Silence(), answer()) as service:
        assert ask(service.url).text == "hello"


@pytest.mark.parametrize("text", ["<html>busy</html>", '{"choices": [', "", '"text"', "{}", '{"choices": ["x"]}'])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_garbage_is_tried_again(text: str, kind: str) -> None:
    with serving(Answer(200, text, kind=kind), answer()) as service:
        assert ask(service.url).text == "hello"
    with serving(Answer(200, text, kind=kind)) as service:
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
        (402, None, "add credit"),
        (405, None, "check teacher.model big"),
        (407, None, "wants a login"),
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
        (answer("half a te", finish="content_filter"), "content_filter: finish_reason content_filter"),
        (Answer(200, '{"choices": [], "usage": {"prompt_tokens": 11}}'), "no_choices: the list of choices is empty"),
    ],
)
def test_answers_without_usable_text(step: Answer, error: str) -> None:
    with serving(step) as service:
        reply = ask(service.url)
    assert (reply.text, reply.finish_reason, reply.error) == ("", "error", error)
    assert reply.prompt_tokens == 11  # it was paid for
    assert len(service.requests) == 1


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource", "ERROR", "some_new_word"])
def test_an_answer_that_broke_off_is_asked_again_and_is_no_text(finish: str) -> None:
    half = answer('{"examples": [{"text": "Where is', finish=finish)
    with serving(half, answer()) as service:
        assert ask(service.url).text == "hello"
    with serving(half) as service:
        reply = ask(service.url, max_retries=2)
        message = refused_probe(service.url)
    assert len(service.requests) == 6
    assert (reply.text, reply.finish_reason) == ("", "error")
    assert reply.error == f"unavailable: the service broke off (finish_reason {finish.lower()}) (tried 3 times)"
    assert f"broke off (finish_reason {finish.lower()})" in message


def test_the_reason_that_comes_with_a_broken_answer_is_told() -> None:
    upstream = {"error": {"code": 502, "message": "Upstream idle timeout exceeded"}}
    with serving(answer("half", finish="error", choice=upstream)) as service:
        error = ask(service.url, max_retries=0).error
    assert error == "unavailable: the service broke off (finish_reason error): Upstream idle timeout exceeded (tried 1 times)"


@pytest.mark.parametrize("finish", ["tool_calls", "function_call"])
def test_a_tool_call_is_no_answer(finish: str) -> None:
    with serving(answer("let me look", finish=finish)) as service:
        assert ask(service.url).error == f"no_content: a tool was called, finish_reason {finish}"
    assert len(service.requests) == 1, "the same seed would call it again"


@pytest.mark.parametrize("code", [None, 429, 503])
def test_an_error_sent_as_an_answer_is_asked_again(code: int | None) -> None:
    error = Answer(200, json.dumps({"error": {"message": "No provider is free", "code": code}}))
    with serving(error, answer()) as service:
        assert ask(service.url).text == "hello"
    with serving(error) as service:
        told = ask(service.url, max_retries=0).error
    assert told.startswith("unavailable: an error instead of an answer") and "No provider is free" in told


def test_a_refused_key_sent_as_an_answer_stops_the_run() -> None:
    expired = Answer(200, '{"error": {"message": "Key expired", "code": 401}}')
    with serving(expired) as service, pytest.raises(UserError, match="Key expired; check the key in TEACHER_KEY"):
        ask(service.url)
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
def test_reasoning_is_kept_apart(step: Answer, text: str, reasoning: str) -> None:
    with serving(step) as service:
        reply = ask(service.url)
    assert (reply.text, reply.reasoning, reply.error) == (text, reasoning, "")


@pytest.mark.parametrize("finish", ["stop", None, "", "eos", "STOP", "end_turn", "stop_sequence", "COMPLETE"])
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


def test_probe_sends_and_reads_what_a_run_does() -> None:
    with serving(answer()) as service:
        probe(service.url, replace(CHAT, stop=("###",)), CHAT)
        ask(service.url, replace(CHAT, stop=("###",)))
        probe(service.url, Prompt(text="1. first"))
    asked, in_a_run, continued = service.bodies
    assert (
        asked
        == in_a_run
        == {
            "model": "big",
            "messages": [{"role": "system", "content": "You write."}, {"role": "user", "content": "One more."}],
            "stop": ["###"],
            **SAMPLING,
        }
    )
    assert continued == {"model": "big", "prompt": "1. first", **SAMPLING}
    with serving(failure(429)) as service:
        probe(service.url)  # busy, but there
    assert len(service.requests) == 3


def test_probe_asks_for_another_row_where_one_got_no_text() -> None:
    with serving(answer("", finish="content_filter"), answer(None, finish="length"), answer()) as service:
        probe(service.url, CHAT, CHAT, CHAT)
    assert len(service.requests) == 3
    with serving(answer(None, finish="length", reasoning_content="hm")) as service:
        message = refused_probe(service.url, CHAT, CHAT)
    assert "none of 2 requests was answered with text (no_content: only reasoning, finish_reason length)" in message
    assert "raise teacher.max_tokens" in message


def test_probe_names_an_address_where_nobody_answers() -> None:
    with serving(answer()) as service:
        url = service.url
    message = refused_probe(url)
    assert f"teacher.base_url {url}: unreachable: connection failed: Connection refused" in message
    assert "is the service running" in message


REFUSALS = by_prompt_and_seed(["hello"])


@pytest.mark.parametrize(
    ("respond", "reason", "remedy", "setting"),
    [
        (
            strict(REFUSALS, system=False),
            "HTTP 400: System role not supported",
            "--set teacher.system_message=merge puts the task's system text into the user message",
            {},  # the task's prompt is merged before it gets here: test_preflight
        ),
        (
            strict(REFUSALS, both=False),
            "HTTP 400: `temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            "--set 'teacher.request.drop=[top_p]' leaves top_p out",
            {"request": RequestConfig(drop=("top_p",))},
        ),
        (
            strict(REFUSALS, forbids=["seed"]),
            "HTTP 422: seed: Extra inputs are not permitted",
            "--set 'teacher.request.drop=[seed]' leaves it out",
            {"request": RequestConfig(drop=("seed",))},
        ),
        (
            strict(REFUSALS, forbids=["top_k"]),
            "HTTP 422: top_k: Extra inputs are not permitted",
            "take top_k out of teacher.request.add",
            {},
        ),
    ],
)
def test_probe_names_what_was_refused_and_the_setting_that_mends_it(
    respond: Respond, reason: str, remedy: str, setting: dict[str, Any]
) -> None:
    wanted = RequestConfig(add={"top_k": 5}) if "top_k" in reason else RequestConfig()
    with serving(respond) as service:
        message = refused_probe(service.url, request=wanted)
        reply = ask(service.url, request=wanted)
        if setting:
            probe(service.url, **setting)
    assert message.startswith(f"teacher.base_url {service.url}: refused a first request: {reason}; {remedy}")
    assert reply.error.startswith(f"bad_request: {reason}; {remedy}"), "a row in the middle of a run is told the same"


def test_a_refusal_that_names_nothing_is_told_with_what_was_sent() -> None:
    request = RequestConfig(drop=("temperature",), add={"top_k": 5})
    with serving(failure(400, "Invalid request")) as service:
        message = refused_probe(service.url, request=request)
    assert message == (
        f"teacher.base_url {service.url}: refused a first request: HTTP 400: Invalid request; sent were model, messages (system, "
        "user), top_p, max_tokens, seed, top_k; teacher.request.drop and teacher.request.add change that (asked about row s-0)"
    )


def test_an_exam_that_the_service_has_no_path_for_is_found_before_the_run() -> None:
    with serving(failure(404, "Not Found")) as service:
        message = refused_probe(service.url, Prompt(text="Question: a\nType:"))
    assert "before /completions" in message and "teacher.style=chat only" in message


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
