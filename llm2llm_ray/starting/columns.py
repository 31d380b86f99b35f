"""Which column is the text, the label and the id, and why. What the values do not settle is asked, by a question with candidates.

The rules. Worked answers that end in `#### number` make it gsm8k. Else the label is the column with few different short values,
and the text the one in which most rows differ; between several a column's name decides (`label` before `fine_label`), and so does
a length three times that of any other. An id has another value in every row, and looks like one.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.table import Table
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.rows import shown

_LABEL_NAMES = frozenset(
    {
        "label", "labels", "class", "category", "intent", "target", "topic", "sentiment", "emotion", "queue", "tag", "gold", "y",
        "output", "kategorie", "klasse", "etikett", "thema",
    }
)  # fmt: skip
_TEXT_NAMES = frozenset(
    {
        "text", "sentence", "body", "message", "question", "utterance", "content", "review", "comment", "query", "request",
        "input", "prompt", "description", "document", "tweet", "post", "email", "problem", "nachricht", "anfrage",
        "frage", "satz",
    }
)  # fmt: skip
_ID_NAMES = frozenset(
    {"id", "ids", "uid", "uuid", "guid", "key", "index", "idx", "nr", "no", "num", "number", "nummer", "ref", "rowid", "unnamed"}
)
_CHOICES = frozenset({"choices", "options", "endings", "candidates", "alternatives"})
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?|[-+]?[.,]\d+")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ,]+\d{1,2}:\d{2}.*)?")
_LONGEST_LABEL = 80
_MANY_NUMBERS = 20
"""Different whole numbers in a column that is not called like a label, from which they are taken for amounts."""
_BY_FAR = 3
_WORKED = 0.9


@dataclass(frozen=True, slots=True)
class Question:
    """What is not certain. Example: Question("label", "--label", "Which column is the label?", (("queue", "6 values"), …))"""

    role: str
    flag: str
    asked: str
    candidates: tuple[tuple[str, str], ...]
    """Column, and what speaks for it."""


Choose = Callable[[Question], str]
"""The column that a person chooses; raises UserError where nobody can be asked."""


@dataclass(frozen=True, slots=True)
class Roles:
    task: str
    """classification or gsm8k."""
    text: str
    """gsm8k: the question."""
    label: str
    """gsm8k: the worked answer."""
    id: str | None
    told: tuple[str, ...]
    """One line per column: what it was taken for, and why."""


@dataclass(frozen=True)
class Column:
    name: str
    values: tuple[str, ...]
    """Of the rows that have one."""
    rows: int
    nested: bool = False

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.values)

    @cached_property
    def letters(self) -> float:
        """Per value."""
        return sum(char.isalpha() for value in self.values for char in value) / max(1, len(self.values))

    def called(self, names: frozenset[str]) -> bool:
        """Example: Column("ticketId", …).called({"id"})"""
        words = re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+", self.name)
        return bool({word.casefold() for word in words} & names) or self.name.casefold() in names

    def all_match(self, pattern: re.Pattern[str]) -> bool:
        return bool(self.values) and all(pattern.fullmatch(value) for value in self.counts)

    @property
    def is_id(self) -> bool:
        """Every row has its own, in one word; it is called an id, or counts the rows."""
        if self.rows < 2 or len(self.counts) < self.rows or any(len(v) > 64 or len(v.split()) != 1 for v in self.values):
            return False
        if not self.name or self.called(_ID_NAMES):
            return True
        numbers = [int(value) for value in self.values if re.fullmatch(r"\d{1,18}", value)]
        return len(numbers) == self.rows and numbers == list(range(numbers[0], numbers[0] + self.rows))

    @property
    def may_be_label(self) -> bool:
        most = max(2, len(self.values) // 2)
        if self.nested or not 2 <= len(self.counts) <= most or any(len(v) > _LONGEST_LABEL or "\n" in v for v in self.counts):
            return False
        if self.all_match(_DATE) or (self.all_match(_NUMBER) and not self.all_match(re.compile(r"[-+]?\d+"))):
            return False
        return self.called(_LABEL_NAMES) or not self.all_match(_NUMBER) or len(self.counts) <= _MANY_NUMBERS

    @property
    def may_be_text(self) -> bool:
        plain = self.nested or self.all_match(_DATE) or self.all_match(_NUMBER)
        return not plain and self.letters >= 3 and 2 * len(self.counts) > len(self.values)

    @property
    def is_worked(self) -> bool:
        """Answers that end in `#### number`."""
        read = Gsm8k().answer
        return bool(self.values) and sum(read(value) is not None for value in self.values) >= _WORKED * len(self.values)

    @property
    def summary(self) -> str:
        most = ", ".join(f"{shown(value)} {count}" for value, count in self.counts.most_common(6))
        more = f", and {len(self.counts) - 6} more" if len(self.counts) > 6 else ""
        return f"{len(self.counts)} values in {len(self.values)} rows: {most}{more}"


def columns_of(table: Table) -> list[Column]:
    found = []
    for name in table.columns:
        values = tuple(value for _, row in table.rows if (value := row.get(name, "")))
        found.append(Column(name, values, len(table.rows), name in table.nested))
    return found


def find_roles(table: Table, *, text: str | None, label: str | None, choose: Choose) -> Roles:
    """`text` and `label` are the user's word, which wins. Raises UserError where no built-in task fits."""
    columns = {column.name: column for column in columns_of(table)}
    for flag, name in (("--text", text), ("--label", label)):
        if name is not None and name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its columns: {', '.join(columns)}"
            raise UserError(f"{flag} {name}: {table.path} has no such column; {hint}")
    if text is not None and text == label:
        raise UserError(f"--text and --label are both {text}: name two columns")
    ids = [column for column in columns.values() if column.is_id and column.name not in (text, label)]
    left = [column for column in columns.values() if column not in ids]
    answer, why_label = _label(table, left, text, label, choose)
    question, why_text = _text(table, left, answer, text, choose)
    worked = columns[answer].is_worked
    _has_header(table, columns[answer])
    id_ = next((column.name for column in sorted(ids, key=lambda c: not c.called(_ID_NAMES))), None)
    told = {
        question: f"the {'question' if worked else 'text'}: {why_text}",
        answer: f"the {'answer' if worked else 'label'}: {why_label}",
    }
    lines = [
        f"{name or '(no name)'}: {told.get(name) or _other(column, id_, columns[answer])}" for name, column in columns.items()
    ]
    return Roles("gsm8k" if worked else "classification", question, answer, id_, tuple(lines))


def _label(table: Table, columns: Sequence[Column], text: str | None, given: str | None, choose: Choose) -> tuple[str, str]:
    by_name = {column.name: column for column in columns}
    if given is not None:
        return given, f"named by --label; {by_name[given].summary}" if not by_name[given].is_worked else "named by --label"
    others = [column for column in columns if column.name != text]
    worked = [column for column in others if column.is_worked]
    if worked:
        return _one(worked, "answer", "--label", lambda c: "its values end in #### and a number", choose)
    choices = next((column.name for column in others if column.nested and column.called(_CHOICES)), None)
    if choices is not None:
        raise UserError(
            f"{table.path}: {choices} holds lists, as of a multiple-choice task, which init does not know: `llm2llm tasks` tells "
            "how casehold reads its choices; if there is a label beside them, name its column with --label"
        )
    found = _not_told_twice([column for column in others if column.may_be_label])
    called = _called(found, _LABEL_NAMES)
    if len(called) == 1:
        return called[0].name, f"called like one; {called[0].summary}"
    if not found:
        raise UserError(_no_task(table, others))
    return _one(called or found, "label", "--label", lambda c: c.summary, choose)


def _text(table: Table, columns: Sequence[Column], label: str, given: str | None, choose: Choose) -> tuple[str, str]:
    if given is not None:
        return given, "named by --text"
    found = sorted((c for c in columns if c.name != label and c.may_be_text), key=lambda c: -c.letters)
    called = _called(found, _TEXT_NAMES)
    if not found:
        names = ", ".join(column.name for column in columns if column.name != label) or "none"
        raise UserError(
            f"{table.path}: no column beside {label} in which most rows have a text of their own (others: {names}): name it with "
            "--text"
        )
    longest = len(found) > 1 and found[0].letters >= _BY_FAR * found[1].letters
    if len(called) == 1 and (called[0] is found[0] or found[0].letters < _BY_FAR * called[0].letters):
        return called[0].name, f"called like one; {_mean(called[0])}"
    if longest and not called:
        return found[0].name, f"by far the longest; {_mean(found[0])}"
    return _one(found, "text", "--text", _mean, choose)


def _one(found: Sequence[Column], role: str, flag: str, why: Callable[[Column], str], choose: Choose) -> tuple[str, str]:
    """The only one, or the chosen one."""
    if len(found) == 1:
        return found[0].name, f"the only column that can be; {why(found[0])}"
    by_name = {column.name: column for column in found}
    asked = f"Which column is the {role}?"
    chosen = choose(Question(role, flag, asked, tuple((column.name, why(column)) for column in found)))
    return chosen, f"chosen; {why(by_name[chosen])}"


def _called(columns: Sequence[Column], names: frozenset[str]) -> list[Column]:
    """The columns that have one of the names, or else those that have one among their words."""
    whole = [column for column in columns if column.name.casefold() in names]
    return whole or [column for column in columns if column.called(names)]


def _mean(column: Column) -> str:
    words = sum(len(value.split()) for value in column.values) / max(1, len(column.values))
    return f"{words:.0f} words on average, {len(column.counts)} different in {len(column.values)} rows"


def _not_told_twice(columns: Sequence[Column]) -> list[Column]:
    """Without the columns that say the same as another in numbers (label 3, label_text "billing")."""
    return [c for c in columns if not (c.letters == 0 and any(o.letters and _same(c, o) for o in columns))]


def _same(one: Column, other: Column) -> bool:
    """Whether two columns are one-to-one."""
    if len(one.values) != len(other.values):
        return False
    return len(set(zip(one.values, other.values, strict=True))) == len(one.counts) == len(other.counts)


def _other(column: Column, id_: str | None, label: Column) -> str:
    if column.name == id_:
        return "the id: every row has its own"
    if not column.values:
        return "not used: empty"
    if len(column.counts) == 1:
        return f"not used: {shown(column.values[0])} in every row that has one"
    if column.called(_ID_NAMES) and not column.is_id and len(column.counts) > len(column.values) // 2:
        return "not used: no id, since rows share one; ids are made of the rows' content"
    return f"not used: says the same as {label.name}" if _same(column, label) else "not used"


def _has_header(table: Table, label: Column) -> None:
    if label.counts[label.name] > 1 and "columns" in table.read_as:
        raise UserError(
            f"{table.path}, line 1: {shown(label.name)} should be the name of a column, but {label.counts[label.name]} rows have "
            "it as a value: put a line with the columns' names on top, such as text and label"
        )


def _no_task(table: Table, columns: Iterable[Column]) -> str:
    told = "; ".join(f"{column.name}: {_why_no_label(column)}" for column in columns)
    return (
        f"{table.path}: no column can be the label ({told}). init knows two tasks: classification (a text and one of a few "
        "labels: name the column with --label if it is there) and gsm8k (a question and an answer that ends in `#### number`). "
        "`llm2llm tasks` lists the others; one of your own is a class in a file (llm2llm_ray/tasks/__init__.py has a whole one)"
    )


def _why_no_label(column: Column) -> str:
    if not column.values:
        return "empty"
    if len(column.counts) == 1:
        return f"{shown(column.values[0])} in every row"
    return f"{len(column.counts)} different in {len(column.values)} rows"
