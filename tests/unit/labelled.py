"""A few labelled rows for tests of studies."""

from __future__ import annotations

from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example

TASK = Classification(labels=["billing", "account"])
SEEDS = [
    Example(id="s-1", input="My card was charged twice this month", output="billing"),
    Example(id="s-2", input="I want to change the picture of my profile", output="account"),
]
UNUSED = [
    Example(id="p-1", input="Where is the invoice of last year", output="billing"),
    Example(id="p-2", input="The profile picture does not change", output="account"),
    Example(id="p-3", input="My card was charged twice for one invoice", output="billing"),
    Example(id="p-4", input="Rename my account please", output="account"),
    Example(id="p-5", input="My card was charged twice but for my account", output="account"),
]
