"""The stateless gates: what can be said against a draft by looking at it alone. One small pure function per reason.

Keeps: a gate returns a counted reason or None, and never raises or repairs. Copies of other rows and of the test set
are the commit gates' business (commit.py), because they need all rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.tasks.normal_form import same_text
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.tasks.teacher_text import chat_markup
from llm2llm_ray.types import Draft, Graded, Rejected

Gate = Callable[[Draft, Graded, AugmentationConfig], Rejected | None]

_CHARACTERS_PER_WORD = 20
"""Bound for text without spaces: longer than words of any language are on average."""

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_NEW = r"\b(?:new|similar|another|different|additional)\b"
_SAMPLE = r"\b(?:(?:example|question|problem|request|text|sentence|message|sample|answer)s?|content|response)\b"
_SAME_CLAUSE = r"[^.?!\n]{0,40}"
_CHATTER = re.compile(
    r"\W*(?:"
    r"as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|(?:sure|certainly|of course|absolutely|okay|ok|great)[\s,.!:-]+"
    r"(?:(?:here|below)(?:'s| is| are)|i(?: can| will|'ll) )"
    rf"|(?:here|below)(?:'s| is| are)\b{_SAME_CLAUSE}{_NEW}{_SAME_CLAUSE}{_SAMPLE}"
    r"|(?:i(?:'m| am) )?sorry,? (?:but )?i (?:can(?:not|'t)|am unable to|am not able to|won't) "
    r"(?:assist|help|fulfil|fulfill|comply|provide|generate|create|write|answer|continue)\b"
    r"|i (?:can(?:not|'t)|am unable to|am not able to|won't) "
    r"(?:(?:assist|help)(?: you)? with (?:that|this|your request|creating|generating|writing)\b"
    r"|fulfil?l (?:that|this|your)\b|comply with\b"
    rf"|(?:provide|generate|create|write)\b{_SAME_CLAUSE}{_SAMPLE})"
    r")",
    re.IGNORECASE,
)
"""Talk about the request instead of an answer to it. Narrow: "I cannot log in" is a fine support request."""


def empty(draft: Draft, mistake: Graded, settings: AugmentationConfig) -> Rejected | None:
    if not any(unicodedata.category(char)[0] in "LNS" for char in draft.input):
        return Rejected(reason="empty", detail="input has no letters, digits or symbols", text=draft.input)
    if not draft.output.strip():
        return Rejected(reason="empty", detail="no output", text=draft.input)
    return None


def too_long(draft: Draft, mistake: Graded, settings: AugmentationConfig) -> Rejected | None:
    """More than `settings.max_words` words in the input or in the output."""
    for name, text in (("input", draft.input), ("output", draft.output)):
        count = len(text.split())
        if count > settings.max_words:
            return Rejected(reason="too_long", detail=f"{name} has {count} words", text=draft.input)
        if len(text) > settings.max_words * _CHARACTERS_PER_WORD:
            return Rejected(reason="too_long", detail=f"{name} has {len(text)} characters", text=draft.input)
    return None


def control_characters(draft: Draft, mistake: Graded, settings: AugmentationConfig) -> Rejected | None:
    for char in draft.input + draft.output:
        bad = unicodedata.category(char) in ("Cc", "Cs", "Co") and char not in "\n\r\t"
        if bad or char == "\ufffd" or char in _BIDI_CONTROLS:
            return Rejected(reason="malformed", detail=f"character U+{ord(char):04X}", text=draft.input)
    return None


def markup_of_chats(draft: Draft, mistake: Graded, settings: AugmentationConfig) -> Rejected | None:
    """Chat markup that leaked into the text."""
    tag = chat_markup(f"{draft.input}\n{draft.output}", mistake.example)
    return Rejected(reason="malformed", detail=f"chat markup {tag}", text=draft.input) if tag else None


def chatter(draft: Draft, mistake: Graded, settings: AugmentationConfig) -> Rejected | None:
    """A refusal, or talk about the request, where the row should begin."""
    for text in (draft.input, draft.output):
        found = _chatter(text)
        if found and not _chatter(mistake.example.input):
            return Rejected(reason="chatter", detail=found.group().strip(), text=draft.input)
    return None


def _chatter(text: str) -> re.Match[str] | None:
    return _CHATTER.match(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def copied_parent(draft: Draft, mistake: Graded, settings: AugmentationConfig) -> Rejected | None:
    if not settings.copies and same_text(draft.input, mistake.example.input):
        return Rejected(reason="copied_parent", detail=f"of {mistake.example.id}", text=draft.input)
    return None


GATES: tuple[Gate, ...] = (empty, control_characters, markup_of_chats, too_long, chatter, copied_parent)
"""In this order: a row is counted under the first reason that applies."""


def bad_answer(draft: Draft, task: Task) -> Rejected | None:
    """An output in which the task's own grader finds no answer (a label outside the set, no `#### n`)."""
    if task.answer(task.completion(draft.output)) is None:
        return Rejected(reason="bad_answer", detail=f"no answer in {draft.output[:80]!r}", text=draft.input)
    return None


def check(draft: Draft, mistake: Graded, task: Task, settings: AugmentationConfig) -> Rejected | None:
    """The first gate's objection to a draft, or None: then it is a candidate for the commit gates."""
    for gate in GATES:
        rejected = gate(draft, mistake, settings)
        if rejected is not None:
            return rejected
    return bad_answer(draft, task)
