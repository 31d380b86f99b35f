"""A teacher behind an OpenAI-compatible service: one retry layer, one rate limit, every failure a Reply or a UserError.

Keeps: the API key is read from the environment and appears in no message, repr or exception, not even when the service
echoes it. A failed row is a Reply with an error; what no retry and no other row can mend stops the run.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from llm2llm_ray.asking.openai_reply import Reading, estimate_tokens, read_reply
from llm2llm_ray.asking.rate_limit import RateLimit
from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Message, Prompt, Reply

_log = logging.getLogger(__name__)

_RETRIED = frozenset({408, 409, 425, 429})
_STOPPING = frozenset({401, 403, 404})
_LONGEST_WAIT_S = 60.0
_PROBE_ATTEMPTS = 3
_PROBE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a request got no answer. `status` is None where there was no HTTP answer, 200 where it was not readable."""

    status: int | None
    message: str
    retry_after_s: float | None = None
    code: str = ""

    @property
    def transient(self) -> bool:
        if self.code == "insufficient_quota":  # a 429 that no waiting mends
            return False
        return self.status in (None, 200) or self.status in _RETRIED or self.status >= 500

    @property
    def stops_the_run(self) -> bool:
        return self.status in _STOPPING or self.code == "insufficient_quota"


class _Transient(Exception):
    def __init__(self, failure: _Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class OpenAITeacher:
    """Asks one service for one model. Make it in the process and event loop that use it; `aclose` it at the end."""

    def __init__(self, config: TeacherConfig, *, deadline_s: float = 900.0, backoff_s: float = 0.5) -> None:
        """`deadline_s`: no retry starts later than this after a request's first try. `backoff_s`: bound of the first
        random wait; it doubles with each further one, up to a minute. Retry-After is waited for in full.

        Raises UserError if the key's environment variable is missing or holds no key.
        """
        assert config.base_url, "checked by TeacherConfig"
        self.estimated_usage = 0
        """Replies whose tokens the service did not count; theirs are guesses."""
        self._config = config
        self._key = _key_from_environment(config.api_key_env)
        self._where = _without_credentials(config.base_url)
        self._deadline_s = deadline_s
        self._backoff = wait_random_exponential(multiplier=backoff_s, max=_LONGEST_WAIT_S)
        self._jitter_s = min(1.0, backoff_s)
        self._limit = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self._length_field = "max_tokens"
        self._client = AsyncOpenAI(base_url=config.base_url, api_key=self._key, timeout=config.timeout_s, max_retries=0)

    def __repr__(self) -> str:
        return f"OpenAITeacher(model={self._config.model!r}, base_url={self._where!r})"

    async def aclose(self) -> None:
        await self._client.close()

    async def ask(self, prompt: Prompt, *, temperature: float, top_p: float, max_tokens: int, seed: int) -> Reply:
        """One reply. After all retries, or for a request the service refuses, a Reply with `error` "unavailable: …" or
        "bad_request: …"; raises UserError where the service refuses the key, the model or the account."""
        sampling = {"temperature": temperature, "top_p": top_p, "seed": seed}
        outcome = await self._retried(prompt, max_tokens, sampling, attempts=self._config.max_retries + 1)
        if isinstance(outcome, Reading):
            if outcome.usage_estimated:
                self._note_estimate()
            return outcome.reply
        if outcome.stops_the_run:
            raise UserError(self._explain(outcome))
        kind = "unavailable" if outcome.transient else "bad_request"
        return Reply(text="", finish_reason="error", error=f"{kind}: {outcome.message}", model=self._config.model)

    async def probe(self, *, temperature: float = 1.0, top_p: float = 1.0) -> None:
        """Ask for a few tokens before a run starts, by the path and with the settings all requests take.

        Raises UserError that names the base URL, and says what to do, if the service is not there or refuses.
        """
        text = "Say yes."
        chat = self._config.style == "chat"
        prompt = Prompt(messages=(Message(role="user", content=text),)) if chat else Prompt(text=text)
        sampling = {"temperature": temperature, "top_p": top_p, "seed": 0}
        outcome = await self._retried(prompt, _PROBE_TOKENS, sampling, attempts=_PROBE_ATTEMPTS)
        if isinstance(outcome, Reading):
            return
        busy = outcome.status == 429 and outcome.transient
        # Some reasoning models refuse a length they cannot finish their thoughts in: then all else was right.
        too_short = outcome.status == 400 and "limit was reached" in outcome.message
        if not busy and not too_short:
            raise UserError(self._explain(outcome))

    async def _retried(
        self, prompt: Prompt, max_tokens: int, sampling: Mapping[str, Any], *, attempts: int
    ) -> Reading | _Failure:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_after_attempt(attempts) | stop_before_delay(self._deadline_s),
            wait=self._wait_s,
            reraise=True,
        )
        try:
            return await retrying(self._once, prompt, max_tokens, sampling)
        except _Transient as given_up:
            failure = given_up.failure
        tried = retrying.statistics.get("attempt_number", 1)
        return _Failure(failure.status, f"{failure.message} (tried {tried} times)", code=failure.code)

    async def _once(self, prompt: Prompt, max_tokens: int, sampling: Mapping[str, Any]) -> Reading | _Failure:
        """One HTTP request under the rate limit; raises _Transient where another try may help."""
        asked = "\n".join(message.content for message in prompt.messages) or prompt.text
        length_field = self._length_field
        ours = {**sampling, "max_tokens": max_tokens, "stop": list(prompt.stop) or None}
        kept = {name: value for name, value in ours.items() if name not in self._config.request.drop and value is not None}
        request = {(length_field if name == "max_tokens" else name): value for name, value in kept.items()}
        request |= {"model": self._config.model, "extra_body": self._config.request.add}
        if prompt.messages:
            request["messages"] = [{"role": m.role, "content": m.content} for m in prompt.messages]
            send: Callable[..., Awaitable[Any]] = self._client.chat.completions.with_raw_response.create
        else:
            request["prompt"] = prompt.text
            send = self._client.completions.with_raw_response.create
        reservation = await self._limit.reserve(estimate_tokens(asked) + max_tokens)
        body = await self._send(send, request)
        if isinstance(body, str):
            reading = read_reply(body, asked=asked, model=self._config.model)
            if reading is not None:
                self._limit.settle(reservation, reading.reply.prompt_tokens + reading.reply.completion_tokens)
                return reading
            body = _Failure(200, self._clean(f"not an answer: {body[:80]!r}"))
        if body.status is not None:  # without an HTTP answer the tokens may have been used: keep the reservation
            self._limit.settle(reservation, 0)
        if body.transient:
            raise _Transient(body)
        if body.status == 400 and length_field == "max_tokens" and "max_completion_tokens" in body.message:
            self._length_field = "max_completion_tokens"  # what newer OpenAI models call it
            return await self._once(prompt, max_tokens, sampling)
        return body

    async def _send(self, send: Callable[..., Awaitable[Any]], request: Mapping[str, Any]) -> str | _Failure:
        """The answer's body. Failures are returned: an exception raised here would carry the request and its key."""
        try:
            async with asyncio.timeout(self._config.timeout_s):  # the client's own timeout is per read, not in all
                response = await send(**request)
                return str(response.text)
        except APIStatusError as error:
            reason = error.message.removeprefix(f"Error code: {error.status_code} - ")
            message = self._clean(f"HTTP {error.status_code}: {reason}")
            return _Failure(error.status_code, message, _retry_after_s(error.response.headers), str(error.code or ""))
        except (TimeoutError, APITimeoutError):
            return _Failure(None, f"no answer within {self._config.timeout_s:g} s")
        except APIConnectionError as error:
            return _Failure(None, self._clean(f"connection failed: {type(error.__cause__ or error).__name__}"))

    def _wait_s(self, state: RetryCallState) -> float:
        wait = self._backoff(state)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Transient) and error.failure.retry_after_s is not None:
            # Jitter on top: all requests in flight were told the same moment.
            wait = max(wait, error.failure.retry_after_s + random.uniform(0, self._jitter_s))
        return wait

    def _explain(self, failure: _Failure) -> str:
        config, where = self._config, f"teacher.base_url {self._where}"
        if failure.code == "insufficient_quota":
            return f"{where}: {failure.message}; the account has no quota left: add credit or use another key"
        if failure.status in (401, 403):
            return f"{where}: {failure.message}; check the key in {config.api_key_env}, and its right to {config.model}"
        if failure.status == 404:
            return (
                f"{where}: {failure.message}; check teacher.model {config.model} and that teacher.base_url is the part "
                "before /chat/completions (it often ends in /v1)"
            )
        if failure.transient:
            return f"{where}: unreachable: {failure.message}; is the service running, and the address right?"
        return f"{where}: refused a first request: {failure.message}; check teacher.model, temperature and top_p"

    def _clean(self, message: str) -> str:
        """A service's words as one short line without the key, which some echo."""
        return " ".join(message.replace(self._key, "[key]").split())[:300]

    def _note_estimate(self) -> None:
        if self.estimated_usage == 0:
            _log.warning("%s does not count tokens: token and money totals are estimates", self._where)
        self.estimated_usage += 1


def _key_from_environment(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"teacher.api_key_env: the environment variable {name} is not set; export it with the service's key "
            "(any text if the service wants none)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"teacher.api_key_env: the value of {name} is no key (spaces, line breaks or non-ASCII in it)")
    return key


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: Retry-After holds seconds or an HTTP date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
