"""`task`: what is learned, and from which rows."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from llm2llm_ray.config.section import Section


class TaskConfig(Section):
    """What is learned and from which rows."""

    name: str
    """A built-in task (`llm2llm tasks` lists them), or `my_pkg.my_task:MyTask`."""
    data: str | None = None
    """A folder with seed/train, dev and test files (.jsonl, .csv, .parquet), or a Hugging Face dataset id."""
    seed: str | None = None
    """File of the labelled seed rows; overrides the one found in `data`. A split name for a hub id."""
    dev: str | None = None
    test: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """Task field -> column of the file, where they differ: {text: sentence, label: intent}."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Given to the task's constructor (labels and their descriptions, wording of prompts)."""
    seeds_per_class: int | None = Field(default=None, ge=1)
    """Draw this many seed rows of each class instead of taking all."""
    seed_rows: int | None = Field(default=None, ge=1)
    """Draw this many seed rows in all."""
    dev_rows: int | None = Field(default=None, ge=1)
    test_rows: int | None = Field(default=None, ge=1)
    sample_seed: int = 0

    @model_validator(mode="after")
    def _one_cap(self) -> TaskConfig:
        if self.seeds_per_class and self.seed_rows:
            raise ValueError("give seeds_per_class or seed_rows, not both")
        if not self.data and not self.seed:
            raise ValueError("give task.data (a folder or dataset id) or task.seed (a file)")
        return self
