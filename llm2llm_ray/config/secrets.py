"""What looks like a key in a config. Configs are stored with the run and shown in reports, so keys stay in the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_NAME = re.compile(
    r"(?:^|[_-])(?:(?:api|access|private|subscription|secret)[_-]?key|secret|token|passw(?:or)?d|authorization|auth|credentials?)$",
    re.IGNORECASE,
)
_VALUE = re.compile(r"^(?:Bearer|Basic)\s|^(?:sk|pk|gsk|xai|hf|ghp)[-_][A-Za-z0-9_-]{12,}$")


def names_a_secret(name: str) -> bool:
    """Example: names_a_secret("x-api-key") and not names_a_secret("max_completion_tokens")"""
    return bool(_NAME.search(name))


def secrets_in(settings: dict[str, Any]) -> Iterator[str]:
    """Names of the fields, at any depth, whose text looks like a key or is named like one."""
    for name, value in settings.items():
        if any(names_a_secret(name) or _VALUE.search(text) for text in _texts(value)):
            yield name
        for inside in _objects(value):
            yield from secrets_in(inside)


def _texts(value: Any) -> Iterator[str]:
    """Texts of a field: itself, its list's, and its object's where the field's own name covers them all."""
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list | dict):
        for inside in value.values() if isinstance(value, dict) else value:
            yield from _texts(inside)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for inside in value:
            yield from _objects(inside)
