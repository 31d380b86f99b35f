"""Requests and tokens per minute, on a clock of the test's own."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.asking.rate_limit import RateLimit


class Clock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)


def _limit(requests: int | None, tokens: int | None) -> tuple[RateLimit, Clock]:
    clock = Clock()
    return RateLimit(requests, tokens, clock=clock, sleep=clock.sleep), clock


async def _times(limit: RateLimit, clock: Clock, amounts: list[int]) -> list[float]:
    times = []
    for amount in amounts:
        await limit.reserve(amount)
        times.append(clock.now - 100.0)
    return times


def test_requests_are_spaced_after_a_tenth_of_a_minute_at_once() -> None:
    limit, clock = _limit(60, None)
    times = asyncio.run(_times(limit, clock, [1] * 9))
    assert times[:6] == [0.0] * 6
    assert times[6:] == pytest.approx([1.0, 2.0, 3.0])


def test_a_single_request_a_minute_is_let_through() -> None:
    limit, clock = _limit(1, None)
    assert asyncio.run(_times(limit, clock, [1, 1])) == pytest.approx([0.0, 60.0])


def test_no_limit_never_waits() -> None:
    limit, clock = _limit(None, None)
    assert asyncio.run(_times(limit, clock, [10**9] * 5)) == [0.0] * 5


def test_tokens_wait_until_there_are_enough() -> None:
    limit, clock = _limit(None, 6000)  # 100 a second, 600 at once
    assert asyncio.run(_times(limit, clock, [600, 300, 100])) == pytest.approx([0.0, 3.0, 4.0])


def test_a_request_larger_than_the_bucket_passes_and_is_paid_off_by_the_next() -> None:
    limit, clock = _limit(None, 6000)
    assert asyncio.run(_times(limit, clock, [1600, 100])) == pytest.approx([0.0, 11.0])


@pytest.mark.parametrize(("used", "waits"), [(0, 0.0), (600, 1.0), (1100, 6.0)])
def test_the_reply_corrects_the_estimate(used: int, waits: float) -> None:
    limit, clock = _limit(None, 6000)

    async def go() -> None:
        reservation = await limit.reserve(600)
        limit.settle(reservation, used)
        await limit.reserve(100)

    asyncio.run(go())
    assert clock.now - 100.0 == pytest.approx(waits)


def test_first_come_first_served() -> None:
    limit, _ = _limit(None, 6000)
    order: list[int] = []

    async def ask(number: int, tokens: int) -> None:
        await limit.reserve(tokens)
        order.append(number)

    async def go() -> None:
        await asyncio.gather(ask(0, 600), ask(1, 600), ask(2, 1), ask(3, 1))

    asyncio.run(go())
    assert order == [0, 1, 2, 3]


def test_one_who_gives_up_waiting_takes_nothing() -> None:
    limit, clock = _limit(None, 6000)

    async def go() -> None:
        await limit.reserve(600)
        waiting = asyncio.create_task(limit.reserve(600))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        clock.now = 106.0
        await limit.reserve(600)

    asyncio.run(go())
    assert clock.now == 106.0


@settings(deadline=None)
@given(st.lists(st.integers(1, 120), max_size=80), st.integers(1, 300), st.integers(1200, 5000))
def test_never_more_than_the_promise(amounts: list[int], requests: int, tokens: int) -> None:
    limit, clock = _limit(requests, tokens)
    times = asyncio.run(_times(limit, clock, amounts))
    for start in range(len(times)):
        minutes: Counter[str] = Counter()
        for at, amount in zip(times[start:], amounts[start:], strict=True):
            minutes += {"requests": 1, "tokens": amount}
            stretch = (at - times[start]) / 60
            assert minutes["requests"] <= max(1, requests * 0.1) + requests * stretch + 1e-6
            assert minutes["tokens"] <= tokens * (stretch + 0.1) + 1e-6
