"""`gates`: the gates by meaning, all off by default. Whether a model that solves a new row blind comes to the row's own answer,
and how many rows of one kind there may be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from llm2llm_ray.config.section import Section


class RelabelConfig(Section):
    """Blind relabelling (classification, a choice) and agreement with the answer (a solution): the same question, asked again."""

    votes: int = Field(default=0, ge=0)
    """Answers asked for at most, for each new row; asking ends as soon as the outcome is settled. 0: nobody is asked."""
    needed: int | None = Field(default=None, ge=1)
    """Votes for the row's own answer that confirm it; None: more than half of `votes`."""
    temperature: float = Field(default=0.7, ge=0)
    examples: int = Field(default=2, ge=0)
    """Real rows shown, of each class; in all where the task has no classes."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of one vote; None: those of the model that votes (`teacher.max_tokens`, `judge.max_tokens`)."""
    on_doubt: Literal["drop", "keep", "weight"] = "drop"
    """What becomes of a row that is not confirmed."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """With `on_doubt: weight`: of such a row in the training loss, beside 1 of all others."""

    @property
    def least(self) -> int:
        """Votes that confirm a row."""
        return self.needed or self.votes // 2 + 1

    @model_validator(mode="after")
    def _can_pass(self) -> RelabelConfig:
        if self.votes and self.least > self.votes:
            raise ValueError(f"needed is {self.needed}, of {self.votes} votes: no row could pass; lower needed or raise votes")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("at temperature 0 every vote is the same one; set votes to 1, or a temperature above 0")
        return self


class CapsConfig(Section):
    """New rows that a version may hold at most, over all iterations; the first in canonical order stay. None: any number."""

    per_class: int | None = Field(default=None, ge=1)
    """With one answer; for tasks that have classes."""
    per_seed: int | None = Field(default=None, ge=1)
    """Grown from one labelled row."""


class GatesConfig(Section):
    relabel: RelabelConfig = RelabelConfig()
    caps: CapsConfig = CapsConfig()
