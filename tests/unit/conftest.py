"""What the unit tests share: no disk is waited for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """fsync returns at once: what a kill leaves is in the page cache without it, and no test here can cut the power. Those that
    ask when it is called put their own in its place; the processes that tests start are not touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
