"""Which of five holdings a court cited a case for: CaseHOLD (Zheng et al. 2021), in the form of LexGLUE or of its authors.

An input is one line of passage, with `<HOLDING>` where the holding was taken out, and five lines `A: a holding`; the
output is a letter. Where the right choice stands in a teacher's row is drawn from its text, so no teacher's habit of
placing it can be learned. There is no tokenizer here: all lengths are in words.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from llm2llm_ray.tasks.blind import choose_blind, stated
from llm2llm_ray.tasks.holding_prompt import HOLDING, chat
from llm2llm_ray.tasks.rows import shown, text_of
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.tasks.teacher_text import json_items, peel, reject, unusable
from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected

CUT = "[cut]"
"""Stands at an end of a passage where words were left out."""
LETTERS = "ABCDE"

_LEAST_PASSAGE = 40
"""Words of the passage that stay however long the choices are."""
_LEAST_BEFORE = 15
"""Words before the citation in a teacher's passage: fewer are a bare citation, from which no holding follows."""
_LEAST_HOLDING = 3
_SAME_PASSAGE = 0.8
"""Share of a passage's words that also stand in the mistake's, from which it counts as a copy."""

_LONE = re.compile(r"[\"“'`*_(\[ \t]*(?P<letter>[A-E])[\"”'`*_)\]:. \t]*", re.IGNORECASE)
_LISTED = re.compile(r"(?<!\w)[(\[]?(?P<letter>[A-E])[):\]](?!\S)")
_PASSAGE = re.compile(r"^[ \t]*Passage[ \t]*:", re.MULTILINE)
_HELD = re.compile(r"^[ \t]*Holding[ \t]*:(?P<text>[^\r\n]*)", re.MULTILINE)
_OPENING = re.compile(r"(?:holding|recognizing)\b", re.IGNORECASE)

_LIST = "Passages from court decisions, each with what the case cited at its end held."


class CaseHold(Task):
    """Five choices for what a cited case held.

    Example: CaseHold(window_words=200, choice_columns=["holding_0", "holding_1", "holding_2", "holding_3", "holding_4"])
    reads the authors' files, with task.columns: {context: citing_prompt}.
    """

    columns: Sequence[str] = ("context", "choices", "label")
    version = 2

    def __init__(
        self, window_words: int | None = None, choice_columns: Sequence[str] | None = None, shown_words: int = 35
    ) -> None:
        """Raises ValueError on a window without room for a passage, or other than five columns.

        `window_words` bounds passage and choices together: a longer passage is cut around the citation, visibly (`[cut]`)
        and counted (`seed_cut`, `test_cut`); the choices never are, and 40 words of the passage stay. None cuts nothing.
        A word of these texts is 1.2 to 2.3 tokens of SmolLM2. `choice_columns` names five columns that hold one choice
        each, in place of one column with a list. `shown_words` is how much of a passage a completing teacher sees.
        """
        for name, value in (("window_words", window_words), ("shown_words", shown_words)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < _LEAST_BEFORE):
                raise ValueError(f"{name} must be a whole number of words, at least {_LEAST_BEFORE}, not {shown(value)}")
        if choice_columns is not None:
            names = tuple(choice_columns)
            if isinstance(choice_columns, str) or len(set(names)) != len(LETTERS):
                raise ValueError(f"choice_columns must name five columns, not {shown(choice_columns)}")
            self.columns = ("context", *names, "label")
        self.window_words = window_words
        self.choice_columns = None if choice_columns is None else list(choice_columns)
        self.shown_words = shown_words

    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        passage = _one_line(text_of(row, "context"))
        times = passage.count(HOLDING)
        if times != 1:
            raise ValueError(f"field context: {HOLDING} stands in it {times} times, not once: mark one place, or remove the row")
        if self.choice_columns:
            choices = [_one_line(text_of(row, name)) for name in self.choice_columns]
        else:
            choices = _listed_choices(row["choices"])
        label = unicodedata.normalize("NFKC", text_of(row, "label", numbers=True)).upper()
        letter = LETTERS[int(label)] if label in ("0", "1", "2", "3", "4") else label
        if letter not in tuple(LETTERS):
            raise ValueError(f"field label: {shown(label)} is neither 0 to 4 nor A to E: correct the row")
        return Example(id=row_id, input=self._input(passage, choices), output=letter)

    def _input(self, passage: str, choices: Sequence[str]) -> str:
        """The whole text of a row; the one place where a passage is cut."""
        if self.window_words is not None:
            left = self.window_words - sum(len(choice.split()) for choice in choices)
            passage = _around_citation(passage, max(left, _LEAST_PASSAGE))
        return "\n".join([passage, *(f"{letter}: {choice}" for letter, choice in zip(LETTERS, choices, strict=True))])

    def counts(self, rows: Sequence[Example]) -> Mapping[str, int]:
        passages = [row.input.split("\n", 1)[0] for row in rows]
        return {"cut": sum(text.startswith(f"{CUT} ") or text.endswith(f" {CUT}") for text in passages)}

    def student_prompt(self, text: str) -> str:
        return f"Which holding belongs at {HOLDING}?\n\nPassage: {text}\nAnswer:"

    def answer(self, completion: str) -> str | None:
        """A lone letter, or one line of the list of choices (`D: holding that …`); a letter inside a sentence is none."""
        line = next((line for line in completion.splitlines() if line.strip()), "")
        lone = _LONE.fullmatch(line)
        if lone:
            return lone["letter"].upper()
        listed = {found["letter"] for found in _LISTED.finditer(line)}
        first = _LISTED.match(line.lstrip())
        return first["letter"] if first and len(listed) == 1 else None

    def choices(self, text: str) -> Sequence[str] | None:
        return [self.completion(letter) for letter in LETTERS]

    def is_correct(self, output: str, completion: str) -> bool:
        answer = self.answer(completion)
        return answer is not None and answer == output.strip().upper()

    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        """Chat: the mistake alone, for passages are long. Completion: passages that end with the citation, each with its
        holding (the student's wrong answer has no place in such a list)."""
        wrong = mistake.example
        if asked.style == "completion":
            shown_rows = [*(peer for peer in asked.peers if peer.id != wrong.id and peer.input != wrong.input), wrong]
            told = "\n\n".join(map(self._told, shown_rows))
            stop = ("\n\n", "\nPassage:") if asked.count == 1 else ("\n\n\n",)
            return Prompt(text=f"{_LIST}\n\n{told}\n\nPassage:", stop=stop)
        passage, choices = _parts(wrong.input)
        by_letter = dict(zip(LETTERS, choices, strict=True))
        right = by_letter.pop(wrong.output)
        said = None
        if asked.show_wrong_answer:
            said = by_letter.get(mistake.answer or "") or json.dumps(mistake.completion.strip()[:200], ensure_ascii=False)
        others = list(by_letter.values())
        return chat(_unmarked(passage), right, others, asked, row_id=wrong.id, said=said, correct=mistake.correct)

    def _told(self, row: Example) -> str:
        """The words before the masked holding, and the holding; what follows is left out, and so are marks of cuts."""
        passage, choices = _parts(row.input)
        before = _unmarked(passage).partition(HOLDING)[0].rstrip(" (").split()
        return f"Passage: {' '.join(before[-self.shown_words :])}\nHolding: {choices[LETTERS.index(row.output)]}"

    def judge_prompt(self, text: str, examples: Sequence[Example], *, style: str) -> Prompt:
        return choose_blind(text, examples, mark=HOLDING, style=style)

    def judge_answer(self, reply: str) -> str | None:
        return stated(reply, ("answer", "holding", "choice", "letter", "label"), self.answer)

    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        if style == "completion":
            return self._continued(reply, mistake, count, cut)
        items = json_items(reply, count=count, cut=cut)
        return [item if isinstance(item, Rejected) else self._draft(item, mistake) for item in items]

    def _continued(self, reply: str, mistake: Graded, count: int, cut: bool) -> list[Draft | Rejected]:
        if not reply.strip():
            return [reject("truncated" if cut else "empty", "empty reply")]
        text = reply.lstrip()
        if not _PASSAGE.match(text):
            text = f"Passage:{reply}"
        marks = list(_PASSAGE.finditer(text))
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        items = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
        return [self._told_back(item, mistake, cut and number == len(items)) for number, item in enumerate(items[:count], 1)]

    def _told_back(self, text: str, mistake: Graded, cut: bool) -> Draft | Rejected:
        """One `passage Holding: a holding`; what follows the first holding's line is ignored.

        The other four choices are the mistake's wrong ones: real, of the same area, and never right for its own case. A
        teacher that only continues a list cannot be asked for four wrong holdings, and no other row is known here.
        """
        held = _HELD.search(text)
        if cut and (held is None or held.end() == len(text)):
            return reject("truncated", "cut by max_tokens", text)
        if held is None or not _OPENING.match(peel(held["text"]).lstrip("(")):
            return reject("malformed", "needs a line `Holding: holding …` after the passage", text)
        passage = f"{_one_line(text[: held.start()]).rstrip(' ;,(')} ({HOLDING})."
        _, choices = _parts(mistake.example.input)
        wrong = [choice for letter, choice in zip(LETTERS, choices, strict=True) if letter != mistake.example.output]
        return self._row(passage, held["text"].strip(), wrong, mistake)

    def _draft(self, item: Mapping[str, object], mistake: Graded) -> Draft | Rejected:
        passage, holding, wrong = item.get("passage"), item.get("holding"), item.get("wrong")
        if not isinstance(passage, str) or not isinstance(holding, str):
            return reject("malformed", "passage and holding must be strings", passage if isinstance(passage, str) else "")
        if not isinstance(wrong, list) or not all(isinstance(choice, str) for choice in wrong):
            return reject("malformed", "wrong must be a list of strings", passage)
        return self._row(_one_line(passage), holding, wrong, mistake)

    def _row(self, passage: str, holding: str, wrong: Sequence[str], mistake: Graded) -> Draft | Rejected:
        texts = [passage, holding, *wrong]
        problem = next((found for text in texts if (found := unusable(text, mistake.example))), None)
        if problem:
            return reject(*problem, passage)
        if passage.count(HOLDING) != 1 or any(HOLDING in choice for choice in texts[1:]):
            return reject("malformed", f"needs {HOLDING} once, in the passage", passage)
        if len(passage.partition(HOLDING)[0].split()) < _LEAST_BEFORE:
            return reject("malformed", f"fewer than {_LEAST_BEFORE} words before the holding", passage)
        if len(holding.split()) < _LEAST_HOLDING:
            return reject("malformed", f"a holding of fewer than {_LEAST_HOLDING} words", passage)
        old_passage, old_choices = _parts(mistake.example.input)
        right = _in_the_form_of(old_choices, holding)
        others = [_in_the_form_of(old_choices, choice) for choice in wrong]
        if _letters(right) in {_letters(choice) for choice in old_choices}:
            return reject("copied_parent", "the holding is a choice of the mistake", passage)
        if len(others) != len(LETTERS) - 1 or len({_letters(choice) for choice in (right, *others)}) != len(LETTERS):
            return reject("malformed", "needs the right holding and four others, all different", passage)
        if _share_of_words(passage, old_passage) >= _SAME_PASSAGE:
            return reject("copied_parent", "the passage is the mistake's", passage)
        place = int(hashlib.sha256(f"{passage}\0{right}".encode()).hexdigest(), 16) % len(LETTERS)
        return Draft(input=self._input(passage, [*others[:place], right, *others[place:]]), output=LETTERS[place])


def _listed_choices(value: object) -> list[str]:
    if not isinstance(value, list | tuple) or len(value) != len(LETTERS):
        raise ValueError(
            f"field choices: expected a list of five texts, found {shown(value)}: correct the row, or name five columns in "
            "task.options.choice_columns"
        )
    choices = [_one_line(text_of({name: choice}, name)) for name, choice in zip(_CHOICE_NAMES, value, strict=True)]
    if not all(choices):
        raise ValueError("field choices: one of the texts is blank: fill it in or remove the row")
    return choices


_CHOICE_NAMES = tuple(f"choices[{number}]" for number in range(len(LETTERS)))


def _parts(text: str) -> tuple[str, list[str]]:
    """Passage and choices of an input: each is one line."""
    passage, *lines = text.split("\n")
    return passage, [line.partition(": ")[2] for line in lines]


def _unmarked(passage: str) -> str:
    """Without marks of cuts, which a teacher would copy."""
    return passage.removeprefix(f"{CUT} ").removesuffix(f" {CUT}")


def _around_citation(passage: str, limit: int) -> str:
    """At most `limit` words, a quarter of them after the citation's (more where few stand before it), and marks of the cuts."""
    words = passage.split()
    if len(words) <= limit:
        return passage
    at = next(number for number, word in enumerate(words) if HOLDING in word)
    behind = len(words) - at - 1
    before = min(at, limit - 1 - min(behind, limit // 4))
    after = min(behind, limit - 1 - before)
    kept = words[at - before : at + after + 1]
    return " ".join([*([CUT] if before < at else []), *kept, *([CUT] if after < behind else [])])


def _in_the_form_of(choices: Sequence[str], text: str) -> str:
    """CaseHOLD's choices have neither capitals nor punctuation: the one that has them would be known by its looks."""
    plain = "".join(choices).replace(" ", "")
    text = _one_line(text)
    if not any(char.isupper() for char in plain):
        text = text.lower()
    if plain.isalnum():
        text = _one_line("".join(char for char in text if char.isalnum() or char == " "))
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _share_of_words(text: str, other: str) -> float:
    words, others = (Counter(found.casefold().split()) for found in (text, other))
    return (words & others).total() / max(words.total(), 1)
