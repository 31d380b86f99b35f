"""Requests and tokens per minute, as a provider counts them: two token buckets with one queue in front.

Keeps: first come, first served; over any stretch of t minutes at most limit * (t + 0.1) is let through, beyond a single
request that alone is larger. Counts one client in one process: several clients must share the limit out among them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_BURST_MINUTES = 0.1
"""What may go out at once: providers enforce their minute in slices of seconds."""

_INSTANT_S = 1e-6
"""Shorter waits are rounding: a clock may not even move by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    tokens: int
    """What was taken for this request, by estimate; 0 without a token limit."""


class _Bucket:
    """Fills with time up to its capacity; a request larger than that, or a wrong estimate, takes it below zero."""

    def __init__(self, per_minute: int, smallest: float, now: float) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(smallest, per_minute * _BURST_MINUTES)
        self._level = self._capacity
        self._updated = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; a request larger than the bucket waits until it is full."""
        self._level = min(self._capacity, self._level + (now - self._updated) * self._per_second)
        self._updated = now
        missing = min(amount, self._capacity) - self._level
        wait = missing / self._per_second
        return wait if wait > _INSTANT_S else 0.0

    def take(self, amount: float) -> None:
        self._level = min(self._capacity, self._level - amount)


class RateLimit:
    """`reserve` before a request, `settle` after it. None: no limit of that kind."""

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._requests = _Bucket(requests_per_minute, 1, clock()) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute, 1, clock()) if tokens_per_minute else None

    async def reserve(self, tokens: int) -> Reservation:
        """Wait until one more request of about `tokens` tokens (prompt and reply) may go out, and count it."""
        wanted = [(b, a) for b, a in ((self._requests, 1), (self._tokens, tokens)) if b is not None]
        async with self._turn:  # held while waiting: whoever came first goes first
            while wait := max((bucket.wait_s(amount, self._clock()) for bucket, amount in wanted), default=0.0):
                await self._sleep(wait)
            for bucket, amount in wanted:
                bucket.take(amount)
        return Reservation(tokens=tokens if self._tokens else 0)

    def settle(self, reservation: Reservation, used: int) -> None:
        """Correct a reservation to the tokens really used (0 if the request failed); the request still counts."""
        if self._tokens is not None:
            self._tokens.take(used - reservation.tokens)
