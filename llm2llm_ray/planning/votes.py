"""What voting on new rows adds to a plan (`gates.relabel`): seconds, money, and the assumption that is told."""

from __future__ import annotations

from collections.abc import Sequence

from llm2llm_ray.config import Config
from llm2llm_ray.config.schedule import votes_each
from llm2llm_ray.planning.lengths import Lengths
from llm2llm_ray.planning.rates import Rates, voter_speed
from llm2llm_ray.planning.workload import Amount, Shares, at_once, money


def measured(config: Config, rates: Rates | None) -> Rates | None:
    """`rates`, or None where they do not tell how fast the engine that votes is."""
    served = config.gates.relabel.votes > 0 and config.voter.kind == "serve"
    return None if rates is None or (served and voter_speed(config, rates) is None) else rates


def vote_seconds(config: Config, rates: Rates, amount: Amount) -> float:
    """0 for a service, whose time is not known."""
    speed, voter = voter_speed(config, rates), config.voter
    if voter.kind == "serve" and speed is not None:
        return speed.seconds(amount.vote_prompt_tokens - amount.cached_vote_tokens, amount.vote_tokens)
    return amount.votes * voter.latency_s / at_once(voter)


def price(config: Config, amount: Amount) -> float:
    """Of a stage's teacher calls and votes, each at the prices of who is asked."""
    votes = money(config.voter.budget, amount.vote_prompt_tokens, amount.vote_tokens)
    return money(config.teacher.budget, amount.teacher_prompt_tokens, amount.teacher_tokens) + votes


def assumption(config: Config, lengths: Lengths, shares: Sequence[Shares]) -> list[str]:
    """`shares`: low, expected, high. A line where anybody votes."""
    if not config.gates.relabel.votes:
        return []
    low, expected, high = (votes_each(config, kind.contested) for kind in shares)
    return [
        f"A new row gets {expected:.1f} votes ({low:.1f} to {high:.1f}), each of {lengths.vote_prompt:.0f} prompt tokens, of "
        f"which {lengths.vote_text:.0f} are not the same in each, and {lengths.vote:.0f} of answer."
    ]
