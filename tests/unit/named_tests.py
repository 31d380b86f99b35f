"""Whether a test exists that a table of the package names as its witness: `unit/test_x.py::test_y`."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def exists(name: str) -> bool:
    file, _, test = name.partition("::")
    path = TESTS / file
    return bool(test) and path.is_file() and bool(re.search(rf"^def {re.escape(test)}\(", path.read_text(), re.MULTILINE))
