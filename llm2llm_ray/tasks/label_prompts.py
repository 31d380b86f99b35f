"""What a teacher is asked for texts with labels: as a chat, or as a list to continue.

A chat's system message is the same for all rows of a run (an engine's prefix cache computes it once): the labels, what good rows
are, the form of the reply. Then come real rows of the label, then what hangs on the row. Everything that a student or a
teacher wrote stands in quotes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm2llm_ray.tasks.angles import angle_of
from llm2llm_ray.tasks.task import Asked
from llm2llm_ray.types import Example, Graded, Message, Prompt

_ANGLES = (
    "rarer situations, with other people, things and places than the obvious ones",
    "without the words that give this label away at once; what is meant follows from the situation",
    "longer than most, with details that do not matter for the label",
    "very short, a few words each",
    "touching the topic of another label in passing, while what is meant is clearly this one",
    "in casual wording, as typed in a hurry",
    "in careful, formal wording",
    "in another form of sentence than most of the real ones have",
)
_SHOWN_CHARACTERS = 200
"""Of a student's answer."""

_SYSTEM = """\
You write training examples for a student: a small classifier that learns to give each text exactly one label. The texts are \
{items}.

The labels ({question}){separated}:
{labels}

What good examples are:
1. They read like real {items}: whole, plausible, without placeholders such as [name].
2. Each belongs to the label asked for beyond doubt: somebody who sees only the text and this list chooses that label and no \
other. Where a second label could fit as well, write another text.
3. They differ from each other, and from all that you are shown, in situation, wording, length and tone. To exchange a name or a \
number is no difference.
4. They do not all use the same telling word: the label follows from what is meant.
5. They are about as short and as long as the real ones that you are shown.

You reply with one JSON object and nothing else, of this form:
{form}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """The labels with their descriptions ("" for none), and what a text, its plural and a label are called.

    Example: LabelSet(labels={"LOC": "a place", "HUM": ""}, item="question", items="questions", question="Type")
    """

    labels: Mapping[str, str]
    item: str
    items: str
    question: str

    def listed(self) -> str:
        """A line for each label."""
        return "\n".join(f"- {label}: {meaning}" if meaning else f"- {label}" for label, meaning in self.labels.items())

    def meaning(self, label: str, form: str) -> str:
        """The label's description in `form` (" ({})"), or nothing."""
        return form.format(self.labels[label]) if self.labels.get(label) else ""


def chat(names: LabelSet, mistake: Graded, asked: Asked) -> Prompt:
    """System message and one user message."""
    separated = ", and what separates them" if any(names.labels.values()) else ""
    system = _SYSTEM.format(
        items=names.items, question=names.question, separated=separated, labels=names.listed(), form=_form("...", 1)
    )
    parts = [*_real(names, _others(mistake.example, asked.peers), mistake.example.output), *_mistake(names, mistake, asked)]
    parts.append(_request(names, mistake.example, asked))
    return Prompt(messages=(Message(role="system", content=system), Message(role="user", content="\n\n".join(parts))))


def list_to_continue(names: LabelSet, mistake: Graded, asked: Asked) -> Prompt:
    """`asked.count` more lines. The wrong one stands last: closest to where the model goes on.

    A later call differs by the rows shown only: a model that continues lists follows no instruction.
    """
    wrong = mistake.example
    confused = mistake.answer if asked.show_wrong_answer and mistake.answer not in (None, wrong.output) else None
    question = names.question[:1].lower() + names.question[1:]
    not_that = f", easily mistaken for {confused}" if confused else ""
    header = f"{capital(names.items)} whose {question} is {wrong.output}{names.meaning(wrong.output, ' ({})')}{not_that}:"
    texts = [*(peer.input for peer in _others(wrong, asked.peers)), wrong.input]
    lines = [f"{number}. {' '.join(text.split())}" for number, text in enumerate(texts, 1)]
    last = len(texts) + 1 + asked.count
    stop = ("\n",) if asked.count == 1 else ("\n\n", f"\n{last}.", f"\n{last})")
    return Prompt(text="\n".join([header, *lines, f"{len(texts) + 1}."]), stop=stop)


def capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _others(wrong: Example, peers: Sequence[Example]) -> list[Example]:
    return [peer for peer in peers if peer.id != wrong.id and peer.input != wrong.input]


def _real(names: LabelSet, rows: Sequence[Example], label: str) -> list[str]:
    lines = [f"- {_quoted(row.input)}" for row in rows]
    return ["\n".join([f"Real {names.items} with the label {_quoted(label)}:", *lines])] if rows else []


def _mistake(names: LabelSet, mistake: Graded, asked: Asked) -> list[str]:
    wrong = mistake.example
    label = _quoted(wrong.output)
    # Without an answer the row may be one that the student got right (augmentation.targets: random).
    got = "The student got this {} wrong:" if asked.show_wrong_answer else "The student should learn from this {}:"
    lines = [got.format(names.item), _quoted(wrong.input)]
    lines.append(f"Its right label: {label}{names.meaning(wrong.output, ' ({})')}")
    if not asked.show_wrong_answer:
        return ["\n".join(lines)]
    parts = ["\n".join([*lines, _said(names, mistake)])]
    if asked.confused:
        other = asked.confused[0].output
        shown = _real(names, asked.confused, other)[0]
        parts.append(f"{shown}\nThese are {_quoted(other)}, not {label}. Make the difference clear in what you write.")
    return parts


def _said(names: LabelSet, mistake: Graded) -> str:
    """The student's answer as a label, or as it stands where it is none."""
    answer = mistake.answer
    if answer is not None and answer in names.labels:
        return f"The student took it for: {_quoted(answer)}{names.meaning(answer, ' ({})')}"
    said = mistake.completion.strip()[:_SHOWN_CHARACTERS]
    return f"The student's answer, which is none of the labels: {_quoted(said)}" if said else "The student gave no answer."


def _request(names: LabelSet, wrong: Example, asked: Asked) -> str:
    label, one = _quoted(wrong.output), asked.count == 1
    new = f"1 new {names.item}" if one else f"{asked.count} new {names.items}"
    lines = [
        f"Write {new} with the label {label} that would teach the student what matters here: what makes such a {names.item} "
        f"{label}, in other situations and other words. Copy nothing that is shown above."
    ]
    if not one:
        lines.append(f"The {asked.count} differ from each other in situation, wording, length and tone.")
    meaning = names.meaning(wrong.output, " ({})")
    lines.append(
        f"{label}{meaning} must be right for {'it' if one else 'each'} beyond doubt, and no other label of the list, even if "
        "the text mentions something that another label is about."
    )
    angle = angle_of(_ANGLES, wrong.id, asked.call)
    if angle:
        lines.append(f"The obvious ones have been written already. This time{'' if one else ', for most of them'}: {angle}.")
    number = "" if one else f", with {asked.count} examples in the list"
    lines.append(f"Reply with JSON of this form{number}: {_form(wrong.output, min(asked.count, 2))}")
    return "\n".join(lines)


def _form(label: str, items: int) -> str:
    return json.dumps({"examples": [{"text": "...", "label": label}] * items}, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
