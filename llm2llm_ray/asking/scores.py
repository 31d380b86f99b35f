"""How likely a model finds completions that others wrote: asked, sent and stored as any request, with numbers for an answer.

A score is a `Request` whose sampling is {"score": [completion, …]}; the text of its reply is JSON, for each a pair of
log-probability and number of tokens. Only engines of ours can answer it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llm2llm_ray.asking.request import Request
from llm2llm_ray.types import Prompt, Reply

SCORE = "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of one completion and the end of text behind it, each token after all before it. Example: Score(log_prob=-1.4, tokens=2)"""

    log_prob: float
    """Sum over the tokens, in nats."""
    tokens: int

    @property
    def loss(self) -> float:
        """Mean over the tokens, in nats: what training would see of this row."""
        return -self.log_prob / self.tokens


def score_request(row_id: str, prompt: Prompt, completions: Sequence[str]) -> Request:
    return Request(row_id=row_id, prompt=prompt, sampling={SCORE: list(completions)})


def written(log_probs: Sequence[float], tokens: Sequence[int]) -> str:
    """A reply's text."""
    return json.dumps(list(zip(log_probs, tokens, strict=True)))


def scores_of(reply: Reply) -> list[Score]:
    """In the order of the completions; `reply` has no error."""
    return [Score(log_prob=log_prob, tokens=tokens) for log_prob, tokens in json.loads(reply.text)]
