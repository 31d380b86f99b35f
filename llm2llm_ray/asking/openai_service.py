"""A teacher behind an OpenAI-compatible service: one retry layer, one rate limit, every failure a Reply or a UserError.

Keeps: the API key appears in no message, repr or exception, not even when the service echoes it. A failed row is a Reply with
an error; what no retry and no other row can mend stops the run.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from openai import APIConnectionError, APIStatusError, APITimeoutError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from llm2llm_ray.asking.openai_client import open_client
from llm2llm_ray.asking.openai_failure import CERTIFICATE, Failure, said
from llm2llm_ray.asking.openai_remedy import explained, refused_request
from llm2llm_ray.asking.openai_reply import Reading, estimate_tokens, read_reply
from llm2llm_ray.asking.rate_limit import RateLimit
from llm2llm_ray.asking.redaction import one_line
from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Prompt, Reply

_log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 60.0
_PROBE_ATTEMPTS = 3


class _Transient(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class OpenAITeacher:
    """Asks one service for one model. Make it in the process and event loop that use it; `aclose` it at the end."""

    def __init__(self, config: TeacherConfig, *, deadline_s: float = 900.0, backoff_s: float = 0.5) -> None:
        """`deadline_s`: no retry starts later than this after a request's first try. `backoff_s`: bound of the first
        random wait; it doubles with each further one, up to a minute. Retry-After is waited for in full.

        Raises UserError if the key, the proxies or the certificates that the environment names cannot be used.
        """
        assert config.base_url, "checked by TeacherConfig"
        self.estimated_usage = 0
        """Replies whose tokens the service did not count; theirs are guesses."""
        self._config = config
        self._where = _without_credentials(config.base_url)
        self._deadline_s = deadline_s
        self._backoff = wait_random_exponential(multiplier=backoff_s, max=_LONGEST_WAIT_S)
        self._jitter_s = min(1.0, backoff_s)
        self._limit = RateLimit(config.requests_per_minute, config.tokens_per_minute)
        self._length_field = "max_tokens"
        self._client, self._key = open_client(config)

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
            raise UserError(explained(outcome, self._config, self._where, prompt))
        kind, remedy = ("unavailable", "") if outcome.transient else ("bad_request", self._remedy(outcome, prompt))
        return Reply(text="", finish_reason="error", error=f"{kind}: {outcome.message}{remedy}", model=self._config.model)

    async def probe(self, requests: Sequence[Request]) -> None:
        """Ask what a run will ask, one after the other, until one is answered with text. Meant for the start of a run.

        Raises UserError with the address, the reason and what to do if the service is not there, refuses, or answers none of
        them. A service that is only busy passes.
        """
        for request in requests:
            sampling = dict(request.asked_with)
            outcome = await self._retried(request.prompt, sampling.pop("max_tokens"), sampling, attempts=_PROBE_ATTEMPTS)
            if isinstance(outcome, Failure):
                if outcome.status == 429 and outcome.transient:
                    return
                about = "" if outcome.transient or outcome.stops_the_run else f" (asked about row {request.row_id})"
                raise UserError(explained(outcome, self._config, self._where, request.prompt) + about)
            if not outcome.reply.error:
                return
            error = outcome.reply.error
        if requests:
            raise UserError(
                f"teacher.base_url {self._where}: none of {len(requests)} requests was answered with text ({error}); "
                "raise teacher.max_tokens if the model thinks before it answers, or take another teacher.model"
            )

    async def _retried(self, prompt: Prompt, max_tokens: int, sampling: Mapping[str, Any], *, attempts: int) -> Reading | Failure:
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
        return replace(failure, message=f"{failure.message} (tried {tried} times)")

    async def _once(self, prompt: Prompt, max_tokens: int, sampling: Mapping[str, Any]) -> Reading | Failure:
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
        outcome = body if isinstance(body, Failure) else read_reply(body, asked=asked, model=self._config.model)
        if isinstance(outcome, Reading):
            self._limit.settle(reservation, outcome.reply.prompt_tokens + outcome.reply.completion_tokens)
            return outcome
        if outcome.status is not None:  # without an HTTP answer the tokens may have been used: keep the reservation
            self._limit.settle(reservation, 0)
        failure = replace(outcome, message=one_line(outcome.message, self._key))
        if failure.transient:
            raise _Transient(failure)
        if failure.status in (400, 422) and length_field == "max_tokens" and "max_completion_tokens" in failure.message:
            self._length_field = "max_completion_tokens"  # what newer OpenAI models call it
            return await self._once(prompt, max_tokens, sampling)
        return failure

    async def _send(self, send: Callable[..., Awaitable[Any]], request: Mapping[str, Any]) -> str | Failure:
        """The answer's body. Failures are returned: an exception raised here would carry the request and its key."""
        try:
            async with asyncio.timeout(self._config.timeout_s):  # the client's own timeout is per read, not in all
                response = await send(**request)
                return str(response.text)
        except APIStatusError as error:
            reason, code = said(error.response.text)
            message = f"HTTP {error.status_code}: {reason}"
            return Failure(error.status_code, message, _retry_after_s(error.response.headers), code)
        except (TimeoutError, APITimeoutError):
            return Failure(None, f"no answer within {self._config.timeout_s:g} s")
        except APIConnectionError as error:
            return _no_connection(error)

    def _wait_s(self, state: RetryCallState) -> float:
        wait = self._backoff(state)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Transient) and error.failure.retry_after_s is not None:
            # Jitter on top: all requests in flight were told the same moment.
            wait = max(wait, error.failure.retry_after_s + random.uniform(0, self._jitter_s))
        return wait

    def _remedy(self, failure: Failure, prompt: Prompt) -> str:
        remedy = refused_request(failure.message, self._config, prompt)
        return f"; {remedy}" if remedy else ""

    def _note_estimate(self) -> None:
        if self.estimated_usage == 0:
            _log.warning("%s does not count tokens: token and money totals are estimates", self._where)
        self.estimated_usage += 1


def _no_connection(error: APIConnectionError) -> Failure:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failure(None, f"its certificate is not trusted: {cause.verify_message}", code=CERTIFICATE)
    return Failure(None, f"connection failed: {_told(causes[-1])}")


def _told(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):  # its errno is OpenSSL's, not the system's
        plain = error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
        return f"TLS: {error.reason}{' (is it a service without TLS, http:// instead of https://?)' if plain else ''}"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """From an HTTP library's word for it down to what the system said."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
