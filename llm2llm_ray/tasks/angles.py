"""From which side a later call about the same row asks, so that it does not bring what the first ones brought.

Stateless: the prompt of a row's n-th call hangs on nothing but the row and n, so that a stored or recorded reply is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def angle_of(angles: Sequence[str], row_id: str, call: int) -> str:
    """Nothing for the first call (0), then one of `angles`: each comes once before one comes again, in an order drawn from
    `row_id`."""
    if call == 0:
        return ""
    drawn = sorted(angles, key=lambda angle: sha256(f"{row_id}/{angle}".encode()).digest())
    return drawn[(call - 1) % len(drawn)]
