"""What a teacher is asked for passages with five holdings, as a chat: the same system message for all rows, then one mistake."""

from __future__ import annotations

import json
from collections.abc import Sequence

from llm2llm_ray.tasks.angles import angle_of
from llm2llm_ray.tasks.task import Asked
from llm2llm_ray.types import Message, Prompt

HOLDING = "<HOLDING>"
"""Stands in a passage where the holding was taken out."""

_ITEM = {"passage": f"... ({HOLDING}). ...", "holding": "holding that ...", "wrong": ["holding that ..."] * 4}
_SYSTEM = f"""\
You write training examples for a small model that learns to read United States court decisions. In each passage a court \
cites a case, and the words that say what that case held are replaced by {HOLDING}. The model chooses them among five holdings.

What good examples are:
1. A passage has 60 to 120 words and reads like a real decision. ({HOLDING}) stands right after the citation, once.
2. From the passage it follows beyond doubt which holding is right: it says what the case is cited for, and does not quote it.
3. The four wrong holdings come from the same area of law and are as long and as precise, but do not fit the passage.
4. Examples differ from each other and from the one you are shown: other parties, another court, another citation, other facts, \
another wording and length. Copy nothing.

You reply with one JSON object and nothing else, of this form: {json.dumps({"examples": [_ITEM]})}"""

_ANGLES = (
    "a court that follows the cited case",
    "a court that tells the cited case apart from the one before it",
    "a passage that first states the rule and then cites the case",
    "a passage that first tells the facts and then cites the case",
    "an appeal from a summary judgment or a dismissal",
    "a dissent, or an argument of a party that the court goes on to reject",
    "wrong holdings that differ from the right one in a single condition",
)


def chat(
    passage: str, right: str, others: Sequence[str], asked: Asked, *, row_id: str, said: str | None, correct: bool
) -> Prompt:
    """`said`: the student's choice, or its answer in quotes; None where it is not shown. `correct`: it chose rightly."""
    why, lesson = "The student chose the wrong holding for this passage:", "what it missed"
    if correct:
        why, lesson = "The student has to be sure about passages like this one:", "more of this"
    parts = [why, json.dumps(passage, ensure_ascii=False)]
    parts += [f"The right one: {right}", "The others:", *(f"- {choice}" for choice in others)]
    if said is not None:
        parts += [f"The student's answer: {said}"]
    one = asked.count == 1
    new = "1 new passage" if one else f"{asked.count} new passages"
    parts += [
        "",
        f"Write {new}, with five holdings {'for it' if one else 'for each'}, that would teach the student {lesson}: the "
        "same kind of legal question, in another case. Copy nothing that is shown above.",
    ]
    if not one:
        parts += [f"The {asked.count} differ from each other in facts, court, wording and length."]
    angle = angle_of(_ANGLES, row_id, asked.call)
    if angle:
        parts += [f"The obvious ones have been written already. This time{'' if one else ', for most of them'}: {angle}."]
    parts += [f"Reply with JSON of the form given{'' if one else f', {asked.count} examples in the list'}."]
    content = "\n".join(parts)
    return Prompt(messages=(Message(role="system", content=_SYSTEM), Message(role="user", content=content)))
