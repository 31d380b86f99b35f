"""Why a request got no answer: the first word of `Reply.error`, what it means for the row, and what a person can do about it.

Four kinds: what passes by itself (nobody was reached), what was refused (asking again as things are gives the same), what a file
of recorded replies does not have, and a budget that is used up. The last two are what was wanted: counted and told, they hold a
stage up only where nothing else came of it.
"""

from __future__ import annotations

UNAVAILABLE = "unavailable"
PASSING = frozenset({UNAVAILABLE})
NO_BUDGET = "budget_exhausted"
NOT_RECORDED = "not_recorded"
WANTED = frozenset({NO_BUDGET, NOT_RECORDED})

_ANSWERED = frozenset({"content_filter", "no_content", "no_choices"})
"""The service did answer, and takes its price for it; there was only no text in it."""
_REMEDIES = {
    "prompt_too_long": "raise engine.max_model_len of the model asked, or shorten the rows",
    "chat_template": "set teacher.system_message=merge, or teacher.style=completion",
    "refused": "change what the engine objects to",
    "content_filter": "use a teacher without that filter, or leave such rows out",
    NOT_RECORDED: "the file was made for other prompts (task, augmentation, teacher.style), other rows or fewer rounds: give one "
    "that has them, set run.iterations to as many as it has, or let a live teacher answer what it lacks (teacher.replies)",
    "no_content": "raise the model's max_tokens: reasoning may have used them up",
}


def reason_of(error: str) -> str:
    """Example: reason_of("bad_request: HTTP 422: seed is not allowed") == "bad_request"."""
    return error.partition(":")[0]


def detail_of(error: str) -> str:
    """What follows the reason: the words of whoever gave it."""
    return error.partition(":")[2].strip()


def is_kept(error: str) -> bool:
    """Whether a reply is stored: one that was paid for. Where no model was at work a run that goes on asks again: what stood in
    the way may be gone."""
    return not error or reason_of(error) in _ANSWERED


def remedy(reason: str) -> str:
    """What helps; "" where only the words of whoever refused say so."""
    return _REMEDIES.get(reason, "")
