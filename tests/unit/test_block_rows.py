"""How many rows a block of a stream holds."""

import pytest

from llm2llm_ray.runtime.streaming.streams import block_rows


@pytest.mark.parametrize(
    ("rows", "least", "alone", "expected"),
    [
        (32, 4, False, 4),
        (32, 4, True, 16),
        (5000, 4, False, 4),
        (20_000, 4, False, 19),
        (10**6, 4, False, 64),
        (10**6, 100, True, 100),
        (0, 1, False, 1),
    ],
)
def test_blocks_grow_with_the_set_from_the_least_asked_for(rows: int, least: int, alone: bool, expected: int) -> None:
    assert block_rows(rows, least, alone=alone) == expected
