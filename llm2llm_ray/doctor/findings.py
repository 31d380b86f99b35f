"""One thing that `llm2llm doctor` found, and three words for how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Example: Finding(topic="packages", level="mend", text="ray 2.57.1, wanted ==2.60.0", command="make install")"""

    topic: str
    level: Literal["ok", "note", "mend"]
    """`note`: works, but slower or with less; `mend`: a run would fail."""
    text: str
    command: str = ""
    """What to type, or to change, so that the finding goes away; "" where there is nothing to do."""


def ok(topic: str, text: str) -> Finding:
    return Finding(topic=topic, level="ok", text=text)


def note(topic: str, text: str, command: str = "") -> Finding:
    return Finding(topic=topic, level="note", text=text, command=command)


def mend(topic: str, text: str, command: str) -> Finding:
    return Finding(topic=topic, level="mend", text=text, command=command)
