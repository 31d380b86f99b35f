"""How much of an answer fits behind a prompt: the one rule by which a run is checked before it starts and requests are sent.

Pure. Lengths are tokens of the answering model's own tokenizer.
"""

from __future__ import annotations

LEAST_ANSWER = 16
"""Where fewer tokens than that are left of the context, although more were asked for, an answer would be a torso."""


def answer_room(prompt_tokens: int, *, max_tokens: int, context: int) -> int | None:
    """Tokens of answer behind a prompt, at most `max_tokens`; None where asking is pointless.

    Example: answer_room(1000, max_tokens=256, context=1024) == 24; answer_room(1010, max_tokens=256, context=1024) is None
    """
    left = context - prompt_tokens
    return None if left < min(LEAST_ANSWER, max_tokens) else min(left, max_tokens)
