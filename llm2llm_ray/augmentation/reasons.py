"""What each reason for turning a text away means: the one table that reports and cards read.

Keeps: every reason that gates, tasks and the teacher's part of a stream can give stands here. A task of one's own may add others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm2llm_ray.config import GatesConfig

REASONS: Mapping[str, str] = {
    "teacher_error": "the teacher gave no reply",
    "not_recorded": "not in the file of recorded replies",
    "truncated": "cut off by teacher.max_tokens = {max_tokens}",
    "empty": "no letter, digit or symbol in the input, no output, or no reply",
    "malformed": "control characters, chat markup, or a reply not in the form that was asked for",
    "unknown_label": "a label that the task does not have",
    "too_long": "more than augmentation.max_words = {max_words} words in input or output",
    "chatter": "a refusal or talk about the request where the row should begin",
    "copied_parent": "the text of the row that the student got wrong",
    "bad_answer": "no answer in the output that the task's grader could read",
    "relabelled": "fewer than {needed} of {votes} blind votes gave it the label that it was written for (gates.relabel)",
    "disagreed": "fewer than {needed} of {votes} blind solutions came to its answer (gates.relabel)",
    "judge_error": "too few of the {votes} blind votes could be had (gates.relabel)",
    "contaminated": "equal or near to a dev or test row (augmentation.near_test = {near_test})",
    "near_duplicate": "near to a row of this or an earlier version (augmentation.near_duplicate = {near_duplicate})",
    "duplicate": "the same text and answer as a row of this or an earlier version",
    "conflicting_label": "the same text as another row, with another answer",
    "class_cap": "more than gates.caps.per_class = {per_class} new rows of its class",
    "seed_cap": "more than gates.caps.per_seed = {per_seed} new rows grown from one row",
    "row_cap": "more than augmentation.rows_at_most = {rows_at_most} new rows in one round",
}
"""In the order in which a reply meets them; braces hold the setting that a gate goes by."""


def meanings(config: Mapping[str, Any]) -> dict[str, str]:
    """The table with the settings of a resolved config (Config.model_dump) in it."""
    # A run of an earlier version has no such section.
    gates = GatesConfig.model_validate(config.get("gates", {}))
    settings = {
        "rows_at_most": None, **config["augmentation"], **gates.caps.model_dump(), "max_tokens": config["teacher"]["max_tokens"],
        "votes": gates.relabel.votes, "needed": gates.relabel.least,
    }  # fmt: skip
    return {reason: text.format_map(settings) for reason, text in REASONS.items()}
