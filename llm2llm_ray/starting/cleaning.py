"""Which rows of the user's files can be learned from, and why each of the others is left out, by file and line.

Left out are rows without text or label, rows that the task refuses, texts that stand with two labels (every row of them: nobody
but the user knows which is right), and repeats of a row, of which test, dev and the first line keep theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from unicodedata import normalize

from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.columns import Roles
from llm2llm_ray.starting.table import Table
from llm2llm_ray.tasks.classification import Classification, label_of
from llm2llm_ray.tasks.gsm8k import Gsm8k
from llm2llm_ray.tasks.normal_form import identity, words
from llm2llm_ray.tasks.rows import shown
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import Example

ROLES = ("test", "dev", "rows")
"""Who keeps a row that stands in several files; `rows` is the file that is split."""


@dataclass(frozen=True)
class Read:
    """A row of a file. Example: Read("rows", "tickets.csv", 2, "Where is it?", "shipping", "T-1")"""

    role: str
    file: str
    line: int
    text: str
    label: str
    id: str | None = None

    @cached_property
    def key(self) -> str:
        """The same for texts that differ in case and punctuation only."""
        return identity(words(self.text))

    @property
    def spelled(self) -> str:
        return " ".join(normalize("NFC", self.text).split())


@dataclass(frozen=True, slots=True)
class LeftOut:
    row: Read
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Clean:
    task: Task
    rows: tuple[Read, ...]
    left_out: tuple[LeftOut, ...]
    spellings: Mapping[str, str] = field(default_factory=dict)
    """A label as it is spelled in some rows -> as it is written."""


KINDS: Mapping[str, str] = {
    "two labels": "stand with two labels; correct the file, then call init again with --force",
    "incomplete": "have no text or no label",
    "refused": "cannot be read by the task",
    "repeat": "repeat another row",
}
"""In the order in which a person should look at them."""


def cleaned(tables: Mapping[str, Table], roles: Roles) -> Clean:
    """`tables`: by role (ROLES)."""
    read = [row for role in ROLES if role in tables for row in _read(role, tables[role], roles)]
    left = [LeftOut(row, "incomplete", "no label" if row.text else "no text") for row in read if not (row.text and row.label)]
    complete = [row for row in read if row.text and row.label]
    if roles.task == "gsm8k":
        task: Task = Gsm8k()
        spellings: dict[str, str] = {}
    else:
        task, spellings = _classification(complete)
    usable = []
    for row in complete:
        found = _example(task, row)
        if isinstance(found, LeftOut):
            left.append(found)
        else:
            usable.append(replace(row, label=found.output))
    usable, two_labels = _without_contradictions(usable, task)
    usable, repeats = _without_repeats(usable)
    return Clean(task, tuple(usable), (*two_labels, *left, *repeats), spellings)


def _read(role: str, table: Table, roles: Roles) -> Iterable[Read]:
    for line, row in table.rows:
        id_ = row.get(roles.id, "") if roles.id is not None else ""
        yield Read(role, table.path, line, row.get(roles.text, ""), row.get(roles.label, ""), id_ or None)


def _classification(rows: Sequence[Read]) -> tuple[Classification, dict[str, str]]:
    """The task with the labels of the rows, of those that read the same the most frequent; and how the others are written."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[label_of(row.label)] += 1
    task, labels = Classification(), list[str]()
    spellings: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        known = task.answer(label) if labels else None
        if known is not None:
            spellings[label] = known
            continue
        try:
            task = Classification(labels=[*labels, label], item="text", question="Label")
        except ValueError as error:  # such as one of punctuation only
            row = next(row for row in rows if label_of(row.label) == label)
            raise UserError(f"{row.file}, line {row.line}: {error}; correct it or empty the cell") from None
        labels.append(label)
    return Classification(labels=sorted(labels), item="text", question="Label"), spellings


def _example(task: Task, row: Read) -> Example | LeftOut:
    fields = dict(zip(task.columns, (row.text, row.label), strict=True))
    try:
        return task.example(fields, "row")
    except ValueError as error:
        return LeftOut(row, "refused", str(error))


def _without_contradictions(rows: Sequence[Read], task: Task) -> tuple[list[Read], list[LeftOut]]:
    groups: dict[str, list[Read]] = defaultdict(list)
    for row in rows:
        groups[row.spelled].append(row)
    left = []
    for group in groups.values():
        if any(not task.is_correct(group[0].label, task.completion(row.label)) for row in group[1:]):
            said = ", but ".join(f"{shown(row.label[-60:])} on line {row.line} of {row.file}" for row in group)
            left += [LeftOut(row, "two labels", said) for row in group]
    out = {id(item.row) for item in left}
    return [row for row in rows if id(row) not in out], left


def _without_repeats(rows: Sequence[Read]) -> tuple[list[Read], list[LeftOut]]:
    """Rows come in the order in which they are kept."""
    first: dict[tuple[str, str], Read] = {}
    held_out: dict[str, Read] = {}
    kept, left = [], []
    for row in rows:
        same = first.get((row.key, row.label))
        other = held_out.get(row.key)
        before = same or (other if other is not None and other.role != row.role else None)
        if before is not None:
            left.append(LeftOut(row, "repeat", f"as line {before.line} of {before.file}"))
            continue
        first[row.key, row.label] = row
        if row.role != "rows":
            held_out.setdefault(row.key, row)
        kept.append(row)
    return kept, left
