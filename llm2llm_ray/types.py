"""The records that flow through the loop. Frozen, plain data; imports nothing of ours but what accuracy is.

A version's Parquet rows are `Example`s with their lineage flattened into columns; everything else is kept in a run's
`rounds/` folder so that "why was this dropped" is a column somebody can read later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llm2llm_ray.accuracy import Grades

Origin = Literal["seed", "dev", "augmented"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where an augmented row comes from.

    Example: Lineage(seed_id="s-17", parent_id="s-17", iteration=0, ordinal=0, attempt=0, wrong_answer="billing",
    prompt_sha="9f3c…", teacher="smollm2-135m-instruct", sampling_seed=193847)
    """

    seed_id: str
    """The labelled example at the root: a seed row, or a dev row when errors come from `dev`."""
    parent_id: str
    """The row the student got wrong: `seed_id`, or an augmented row when those are augmented too."""
    iteration: int
    """The i of M^i and W^i: the row belongs to A^i and first stands in D^{i+1}."""
    ordinal: int
    """Number of this seed's request in the whole run; makes the next iteration's request a new sample."""
    attempt: int
    """0 for the first try of this ordinal; rises when a reply gave no usable row."""
    wrong_answer: str
    """What the student said, as it said it."""
    prompt_sha: str
    teacher: str
    sampling_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled row: what the student is shown and what it should say.

    Example: Example(id="s-17", input="Where do I change my card?", output="billing", origin="seed")
    """

    id: str
    input: str
    """The text of the task (question, request, passage with choices), without the prompt around it."""
    output: str
    """The gold answer as the student is trained to write it (a label; a rationale that ends in `#### n`)."""
    origin: Origin = "seed"
    lineage: Lineage | None = None
    weight: float = 1.0
    """Above 0: how much each token of its loss counts in training beside those of rows of weight 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """An example with the student's answer: one element of E^i."""

    example: Example
    completion: str
    answer: str | None
    """The answer found in the completion, normalised; None when there is none."""
    correct: bool
    truncated: bool = False
    error: str = ""
    """Why the row could not be answered at all (for instance "prompt_too_long"); "" normally."""
    fold: int | None = None
    """Of its seed, with cross-fitted errors (rounds/folds.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a teacher reply says before any gate has seen it: a possible row."""

    input: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Text that did not become a row, and why. Data, never an exception and never only a log line.

    Example: Rejected(reason="near_duplicate", detail="of s-03 (0.94)", text="Where can I change my card?")
    """

    reason: str
    detail: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is asked: either chat messages or a text to be continued (exactly one of the two)."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's answer to one request, with its cost. `reasoning` is kept apart and never parsed for rows."""

    text: str
    finish_reason: str
    """"stop", "length", or "error" (then `error` says why and `text` is empty)."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    weights_sha: str = ""
    replica: str = ""
    reasoning: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """A handle on D^i: rows stay in storage, as big data moves by reference."""

    id: str
    """sha256 over the rows and their lineage; never over timings or file bytes."""
    iteration: int
    parent: str | None
    parts: tuple[str, ...]
    """Paths of the Parquet parts relative to the run folder, oldest first."""
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A student in the middle of its training. Example: Snapshot(path="…/students/000-1f…-early", sha="9f…", update=18)"""

    path: str
    sha: str
    update: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A handle on M^i: a Hugging Face folder and the fingerprint of its weights."""

    path: str
    sha: str
    iteration: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What training recorded: updates, tokens, tokens_per_s, padding_share, loss, seconds; token_accuracy: the share of the
    completion tokens of the last epoch's worth of updates that the student, as it was then, found likelier than all others."""
    early: Snapshot | None = None
    """None unless errors are looked for in it (`evaluation.error_source: early`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Grades):
    """What one iteration's evaluation (and augmentation) came to, read back from storage after the stream ended."""

    truncated: int = 0
    asked: int = 0
    """Requests to the teacher."""
    rows_asked: int = 0
    """Rows that they were about."""
    right_asked: int = 0
    """Those of them that the student got right (augmentation.targets, random_share)."""
    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    stopped_by_budget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One turn of Algorithm 1, as its consumer sees it."""

    index: int
    dataset: DatasetVersion
    student: Student
    round: Round
    grown: DatasetVersion | None
    """D^{i+1}; None in the last iteration, which does not generate."""


Rows = Sequence[Mapping[str, Any]]
