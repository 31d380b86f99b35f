"""The teacher budget: calls exactly, tokens and money up to what was in flight, the same after a resume."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.asking.budget import Budget
from llm2llm_ray.config import BudgetConfig
from llm2llm_ray.errors import BudgetExhausted
from llm2llm_ray.types import Reply


def _reply(prompt_tokens: int = 10, completion_tokens: int = 5, error: str = "") -> Reply:
    finish = "error" if error else "stop"
    return Reply(text="", finish_reason=finish, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, error=error)


def test_calls_in_flight_count() -> None:
    budget = Budget(BudgetConfig(calls=2))
    budget.reserve()
    budget.reserve()
    with pytest.raises(BudgetExhausted, match=r"teacher\.budget\.calls: 2"):
        budget.reserve()
    budget.spend(_reply())
    with pytest.raises(BudgetExhausted):
        budget.reserve()
    assert budget.calls == 1
    budget.release()
    budget.reserve()


def test_tokens_stop_before_the_next_call_only() -> None:
    budget = Budget(BudgetConfig(tokens=20))
    for _ in range(2):
        budget.reserve()
    for _ in range(2):
        budget.spend(_reply())
    assert budget.tokens == 30
    with pytest.raises(BudgetExhausted, match=r"teacher\.budget\.tokens"):
        budget.reserve()
    assert budget.remaining() == {"calls": None, "tokens": 0, "money": None}


def test_money_from_both_prices() -> None:
    budget = Budget(BudgetConfig(money=1.0, price_per_million_prompt_tokens=2.0, price_per_million_completion_tokens=8.0))
    budget.reserve()
    budget.spend(_reply(100_000, 50_000))
    assert budget.money == pytest.approx(0.6)
    assert budget.remaining()["money"] == pytest.approx(0.4)
    budget.reserve()
    budget.spend(_reply(200_000, 0))
    with pytest.raises(BudgetExhausted, match=r"teacher\.budget\.money"):
        budget.reserve()


def test_an_error_reply_is_a_call() -> None:
    budget = Budget(BudgetConfig(calls=1))
    budget.reserve()
    budget.spend(_reply(0, 0, error="content_filter"))
    with pytest.raises(BudgetExhausted):
        budget.reserve()


def test_no_limit_never_stops() -> None:
    budget = Budget(BudgetConfig())
    for _ in range(100):
        budget.reserve()
        budget.spend(_reply(10**6, 10**6))
    assert budget.remaining() == {"calls": None, "tokens": None, "money": None}


def test_spend_without_reserve_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        Budget(BudgetConfig()).spend(_reply())


@settings(deadline=None)
@given(st.lists(st.builds(_reply, st.integers(0, 10**9), st.integers(0, 10**9))), st.randoms(use_true_random=False))
def test_a_resumed_run_has_spent_the_same_in_any_order(replies, draw):  # type: ignore[no-untyped-def]
    config = BudgetConfig(calls=10**6, money=1e9, price_per_million_prompt_tokens=0.1, tokens=10**15)
    live, resumed = Budget(config), Budget(config)
    for reply in replies:
        live.reserve()
        live.spend(reply)
    resumed.replay(draw.sample(replies, len(replies)))
    assert live.remaining() == resumed.remaining()
    assert live.describe() == resumed.describe()
