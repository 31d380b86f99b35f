"""Short texts with one label each: intents, question types, sentiments.

One rule reads labels everywhere, in the config, in rows and in what models say: a label is compared without surrounding
white space, quotes, markdown emphasis and one final full stop, ignoring case, Unicode form (composed or not, full-width)
and what cannot be seen, and must be one of the set exactly; a label inside a sentence is no answer.
"""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

from llm2llm_ray.tasks.blind import label_blind, stated
from llm2llm_ray.tasks.label_prompts import LabelSet, capital, chat, list_to_continue
from llm2llm_ray.tasks.rows import shown, text_of
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.tasks.teacher_text import json_items, numbered_items, reject, unusable
from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected

_AROUND = " \t\r\n\v\f\u00a0\u200b\ufeff\"'`*_“”„‘’‚«»"


class Classification(Task):
    """One label per text.

    Example: Classification(labels={"LOC": "a place", "HUM": "a person or group"}, item="question", question="Type")
    """

    columns: Sequence[str] = ("text", "label")
    version = 2

    def __init__(
        self,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        item: str = "request",
        items: str | None = None,
        question: str = "Intent",
        instruction: str | None = None,
        show_labels: bool = False,
    ) -> None:
        """Raises ValueError on labels that the grader could not tell apart.

        `labels` may map a label to a description, which the teacher sees; None takes the labels of the seed rows.
        `item` is what one text is called, `items` its plural (None: with an s), `question` what the student is asked
        for, `instruction` an optional first line of its prompt. `show_labels` puts the labels' names before the text: they
        cost their tokens in every prompt, but are the same in all, which an engine's prefix cache computes once.
        """
        if not isinstance(show_labels, bool):
            raise ValueError(f"show_labels must be true or false, not {shown(show_labels)}")
        self.labels = _checked(labels or ())
        self.descriptions = dict(zip(self.labels, labels.values(), strict=True)) if isinstance(labels, Mapping) else {}
        self.item = item
        self.items = items or f"{item}s"
        self.question = question
        self.instruction = instruction
        self.show_labels = show_labels

    def with_labels(self, labels: Sequence[str]) -> Classification:
        """The same task with its label set fixed."""
        task = copy.copy(self)
        task.labels = _checked(labels)
        return task

    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        text, label = text_of(row, "text"), text_of(row, "label", numbers=True)
        known = self._known(label) if self.labels else label_of(label)
        if known is not None:
            return Example(id=row_id, input=text, output=known)
        raise ValueError(
            f"label {shown(label)} is not in the set ({', '.join(self.labels)}): "
            "correct the row, or add the label to task.options.labels"
        )

    def student_prompt(self, text: str) -> str:
        first = f"{self.instruction}\n\n" if self.instruction else ""
        return f"{first}{self._label_list()}{capital(self.item)}: {text}\n{self.question}:"

    def _label_list(self) -> str:
        return f"{self.question} is one of: {', '.join(self.labels)}\n\n" if self.show_labels and self.labels else ""

    def describe(self) -> Mapping[str, object]:
        """Without `show_labels` where it is off: runs begun before there was such an option keep their keys."""
        return {name: value for name, value in super().describe().items() if name != "show_labels" or value}

    def answer(self, completion: str) -> str | None:
        line = next((line for line in completion.splitlines() if line.strip()), "")
        return self._known(line)

    def _known(self, said: str) -> str | None:
        """The label that is meant; None where it is none of the set."""
        return next((label for label in self.labels if _bare(label) == _bare(said)), None)

    def is_correct(self, output: str, completion: str) -> bool:
        answer = self.answer(completion)
        return answer is not None and _bare(answer) == _bare(output)

    def choices(self, text: str) -> Sequence[str] | None:
        return [self.completion(label) for label in self.labels] or None

    def group(self, example: Example) -> str:
        return example.output

    def taken_for(self, mistake: Graded) -> str | None:
        return mistake.answer if mistake.answer != mistake.example.output else None

    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        names = LabelSet(
            labels={label: self.descriptions.get(label, "") for label in self.labels},
            item=self.item, items=self.items, question=self.question,
        )  # fmt: skip
        return list_to_continue(names, mistake, asked) if asked.style == "completion" else chat(names, mistake, asked)

    def judge_prompt(self, text: str, examples: Sequence[Example], *, style: str) -> Prompt:
        labels = {label: self.descriptions.get(label, "") for label in self.labels}
        return label_blind(text, examples, labels=labels, item=self.item, question=self.question, style=style)

    def judge_answer(self, reply: str) -> str | None:
        return stated(reply, (self.question, "label", "answer"), self._known)

    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        if style == "completion":
            return [
                item if isinstance(item, Rejected) else Draft(input=item, output=mistake.example.output)
                for item in numbered_items(reply, mistake.example, count=count, cut=cut)
            ]
        items = json_items(reply, count=count, cut=cut)
        return [item if isinstance(item, Rejected) else self._draft(item, mistake.example) for item in items]

    def _draft(self, item: Mapping[str, object], parent: Example) -> Draft | Rejected:
        text, label = item.get("text"), item.get("label")
        if not isinstance(text, str) or not isinstance(label, str):
            return reject("malformed", "text and label must be strings", text if isinstance(text, str) else "")
        problem = unusable(text, parent)
        if problem:
            return reject(*problem, text)
        known = self._known(label)
        if known is not None:
            return Draft(input=text.strip(), output=known)
        return reject("unknown_label", label[:80].encode("utf-8", "backslashreplace").decode(), text)


def label_of(text: str) -> str:
    """A label as it is kept: composed, with nothing around it. `re\u0301` and `r\u00e9` are one spelling."""
    return unicodedata.normalize("NFC", text).strip()


@lru_cache(maxsize=1 << 12)
def _bare(label: str) -> str:
    """What labels are compared by."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    seen = " ".join("".join(char for char in plain if unicodedata.category(char) != "Cf").split())
    return seen.strip(_AROUND).removesuffix(".").strip(_AROUND)


def _checked(labels: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a list of texts, or label: description, not {shown(labels)}; quote numbers")
    names = tuple(label_of(label) for label in labels)
    seen: dict[str, str] = {}
    for name in names:
        if not _bare(name):
            raise ValueError(f"label {shown(name)} is only punctuation, which the grader ignores")
        if len(name.splitlines()) > 1:
            raise ValueError(f"label {shown(name)} has more than one line")
        if _bare(name) in seen:
            raise ValueError(f"labels {shown(seen[_bare(name)])} and {shown(name)} read the same: rename one")
        seen[_bare(name)] = name
    return names
