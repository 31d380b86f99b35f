"""Solving a text blind: what a model is asked that never sees which answer was meant, and how its reply is read.

The words of the built-in tasks, for their `judge_prompt` and `judge_answer`. What is the same for all texts stands first (prefix
cache). Any reply is read, none is evaluated, and an answer inside a sentence is none.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.types import Example, Message, Prompt

_FENCE = re.compile(r"```[a-z]*[ \t]*\r?\n(?P<body>.*?)(?:\r?\n[ \t]*```)?", re.DOTALL | re.IGNORECASE)


_MATH = """\
You solve grade-school math problems. Show every step, and do each calculation twice before you write it down. End with one \
line `#### n`, where n is the answer: a single plain number without a unit."""

_HOLDING = """\
You read United States court decisions. In each passage a court cites a case, and the words that say what that case held are \
replaced by {mark}. Of the five holdings below the passage, exactly one belongs there. Reply with its letter alone (A, B, C, D \
or E): no sentence, no reason."""


def label_blind(
    text: str, examples: Sequence[Example], *, labels: Mapping[str, str], item: str, question: str, style: str
) -> Prompt:
    """`labels`: each with its description, or "". Examples of all labels stand beside each other."""
    lines = [f"The labels ({question}):", *(f"- {label}: {about}".removesuffix(": ") for label, about in labels.items())]
    capital = item[:1].upper() + item[1:]
    chat = style == "chat"

    def shown(text: str) -> str:
        return f"{capital}: {json.dumps(text, ensure_ascii=False) if chat else ' '.join(text.split())}\n{question}:"

    for row in _dealt(examples, list(labels)):
        lines += ["", f"{shown(row.input)} {row.output}"]
    if not chat:
        return Prompt(text="\n".join([*lines, "", shown(text)]), stop=("\n",))
    head = f"You are shown one {item} at a time and say which one label belongs to it.\n"
    form = "\nReply with the label alone, spelled as above: no sentence, no reason."
    return _turns("\n".join([head, *lines, form]), [], shown(text))


def solve_blind(text: str, solved: Sequence[tuple[str, str]], *, style: str) -> Prompt:
    """A math problem. `solved`: problems with their solutions."""
    if style == "chat":
        return _turns(_MATH, [(f"Question: {question}", answer) for question, answer in solved], f"Question: {text}")
    head = "Math problems for school, each with its solution. The number after #### is the answer."
    worked = [f"Question: {question}\nAnswer: {answer}" for question, answer in solved]
    return Prompt(text="\n\n".join([head, *worked, f"Question: {text}\nAnswer:"]), stop=("\nQuestion:",))


def choose_blind(text: str, examples: Sequence[Example], *, mark: str, style: str) -> Prompt:
    """A passage with five holdings below it. `mark` stands where the holding was taken out."""
    if style == "chat":
        solved = [(f"Passage: {row.input}", row.output) for row in examples]
        return _turns(_HOLDING.format(mark=mark), solved, f"Passage: {text}")
    head = f"Passages from court decisions, each with the letter of the holding that belongs at {mark}."
    chosen = [f"Passage: {row.input}\nAnswer: {row.output}" for row in examples]
    return Prompt(text="\n\n".join([head, *chosen, f"Passage: {text}\nAnswer:"]), stop=("\n",))


def _turns(system: str, solved: Sequence[tuple[str, str]], asked: str) -> Prompt:
    """A chat whose worked examples are earlier turns, question and answer, so that only the last message is another each time."""
    turns = [
        message
        for question, answer in solved
        for message in (Message(role="user", content=question), Message(role="assistant", content=answer))
    ]
    return Prompt(messages=(Message(role="system", content=system), *turns, Message(role="user", content=asked)))


def _dealt(examples: Sequence[Example], answers: Sequence[str]) -> list[Example]:
    """The first example of every answer, then the second of every answer: a model favours what it has seen last."""
    seen: Counter[str] = Counter()
    places = []
    for number, example in enumerate(examples):
        answer = answers.index(example.output) if example.output in answers else len(answers)
        places.append((seen[example.output], answer, number))
        seen[example.output] += 1
    return [examples[number] for *_, number in sorted(places)]


def thought_away(reply: str) -> str:
    """A reply without a reasoning model's thoughts; "" where they never end."""
    return split_reasoning(reply)[0].strip()


def stated(reply: str, names: Sequence[str], read: Callable[[str], str | None]) -> str | None:
    """The one answer in a reply: its first line, as it stands or after one of `names` and a colon, or a field of that name in a
    JSON object. None where that is no answer to `read`, and where a later line is another one."""
    found = [next(filter(None, map(read, said)), None) for said in _statements(thought_away(reply), names)]
    first = found[0] if found else None
    return first if all(other in (None, first) for other in found) else None


def _statements(text: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    """What every line may say; of a JSON object, what stands under the first of the `names` that it has."""
    fenced = _FENCE.fullmatch(text)
    text = fenced["body"].strip() if fenced else text
    if text.startswith("{"):
        return [(value,) for value in _in_json(text, names)]
    named = re.compile(rf"[\s*_`\"'#>-]*(?:{'|'.join(map(re.escape, names))})[\s*_`\"']*[:：](?P<rest>.*)", re.IGNORECASE)
    found: list[tuple[str, ...]] = []
    for line in filter(str.strip, text.splitlines()):
        said = named.fullmatch(line)
        found.append((line, said["rest"]) if said else (line,))
    return found


def _in_json(text: str, names: Sequence[str]) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    fields = {name.casefold(): said for name, said in value.items()} if isinstance(value, dict) else {}
    said = next((fields[name.casefold()] for name in names if name.casefold() in fields), None)
    plain = isinstance(said, str) or (isinstance(said, int) and not isinstance(said, bool))
    return [str(said)] if plain else []
