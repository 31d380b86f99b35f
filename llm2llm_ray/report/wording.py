"""How the report writes numbers, times and long texts. An absent or meaningless number is an en dash, never a zero."""

from __future__ import annotations

import math
from datetime import UTC, datetime

ABSENT = "–"
MOST_CHARACTERS = 2000


def duration(seconds: float | None) -> str:
    """Examples: "0.2 s", "41 s", "14 min 03 s", "2 h 05 min"."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: float | None, digits: int = 0) -> str:
    """Examples: "12,345", "1.5"."""
    return ABSENT if number is None or not math.isfinite(number) else f"{number:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    return ABSENT if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """A difference of two shares, in percentage points. Example: "+3.1"."""
    return ABSENT if not math.isfinite(share) else f"{100 * share:+.1f}".replace("-", "−")


def moment(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text, cut visibly when it is longer than `most` characters: the page holds thousands of them."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def per(amount: float | None, rows: int) -> float | None:
    """Amount for each row; None when there is no row to divide by."""
    return None if amount is None or rows == 0 else amount / rows
