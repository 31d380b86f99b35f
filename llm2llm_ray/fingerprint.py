"""The one way a value becomes a name: equal values, equal names, on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(value: Any) -> str:
    """sha256 over canonical JSON; raises TypeError on sets and objects and ValueError on NaN, which have no stable form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
