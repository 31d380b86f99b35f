"""What the contamination gate sees: edited test rows caught, and real rows wrongly caught, by task and length of text.

    python -m benchmarks.similarity.contamination [--data ../shared/data] [--write docs/contamination.md] [--read FILE] [--cost]

Each test row is edited in one way at a time; words that come in are drawn from the task's train rows, as often as they
stand there. The other side are the train rows themselves, unless one is a test row word by word: each caught one counts
as wrong, except where it differs from the test row only in function words, in forms of a word, or in order. `--read`
writes every caught row beside the test row that it was caught for, with that verdict, to be read by eye. `before` is
the measure that training rows are compared by (similarity.py), at the same threshold of 0.8. Everything is drawn from a
fixed seed. --cost instead: seconds per candidate against 1,000, 10,000 and 100,000 rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from benchmarks.measuring.environment import REPOSITORY
from benchmarks.similarity.edits import EDITS, ONE_WORD
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.augmentation.similarity import NearDuplicates
from llm2llm_ray.config import AugmentationConfig
from llm2llm_ray.tasks import load_task
from llm2llm_ray.tasks.normal_form import words
from llm2llm_ray.tasks.rows import read_rows
from llm2llm_ray.types import Example

TASKS = ("trec", "snips", "sst2", "gsm8k", "casehold")
TESTS = {"snips": "dev", "sst2": "dev", "casehold": "dev"}
THRESHOLD = AugmentationConfig().near_test
LENGTHS = ((1, 3), (4, 4), (5, 5), (6, 6), (7, 8), (9, 12), (13, 20), (21, 10**9))
EDITED = 400
"""Edits of each kind at each length, about: short of test rows, a row is edited several times."""
SEEDS = 100
"""The size of a usual seed set: what is caught is counted with all train rows known, and with this many."""
FUNCTION_WORDS = frozenset((
    "a", "an", "the", "some", "any", "this", "that", "these", "those", "my", "your", "our", "me", "us", "i", "you", "we",
    "it", "its", "of", "for", "to", "in", "on", "at", "by", "from", "with", "as", "and", "or", "is", "are", "was", "were",
    "be", "do", "does", "did", "can", "could", "will", "would", "please", "s", "ll", "there", "which", "what", "using",
    "something", "anything",
))  # fmt: skip
BEGIN, END = "<!-- made by benchmarks/similarity/contamination.py -->", "<!-- end -->"


def bucket(text: str) -> str:
    """Words as they stand between spaces: an edit changes one of them."""
    count = sum(any(char.isalnum() for char in piece) for piece in text.split())
    low, high = next((low, high) for low, high in LENGTHS if low <= max(1, count) <= high)
    return f"{low}" if low == high else f"{low}-{high}" if high < 10**9 else f"{low}+"


def is_copy(text: str, other: str) -> bool:
    """Whether a real row that was caught is a near copy: for all who read it, it asks or says the same."""
    one, two = Counter(words(text)), Counter(words(other))
    left, right = [word for word in one - two if word not in FUNCTION_WORDS], [w for w in two - one if w not in FUNCTION_WORDS]
    for word in list(left):
        form = next((w for w in right if _forms(word, w)), None)
        if form is not None:
            left.remove(word)
            right.remove(form)
    return not left and not right


def _forms(one: str, other: str) -> bool:
    alike = SequenceMatcher(None, one, other, autojunk=False).ratio()
    return alike >= 0.8 and not any(char.isdecimal() for char in one + other)


@dataclass
class Found:
    """One task and length."""

    edited: Counter[str] = field(default_factory=Counter)
    caught: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(before or after, kind of edit)"""
    real: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    read: list[tuple[bool, str, str]] = field(default_factory=list)


def rows_of(data: Path, task: str) -> tuple[list[Example], list[Example]]:
    """(train, test) as the built-in task reads them."""
    made = load_task(task, {})
    found = []
    for split in ("train", TESTS.get(task, "test")):
        rows = read_rows(data / task / f"{split}.jsonl", split=split, columns={}, needed=made.columns)
        found.append([made.example(row, f"{split}-{line}") for line, row in rows])
    return found[0], found[1]


def measured(
    train: Sequence[Example],
    test: Sequence[Example],
    *,
    kinds: Sequence[str] = tuple(EDITS),
    edited: int = EDITED,
    before: bool = True,
) -> dict[str, Found]:
    """By length of text."""
    few = random.Random(5).sample(train, min(SEEDS, len(train)))
    gates = {"after": HeldOut(test, THRESHOLD, train), "after, few": HeldOut(test, THRESHOLD, few)}
    finds = {name: gate.find for name, gate in gates.items()}
    if before:
        index = NearDuplicates(THRESHOLD)
        for row in test:
            index.add(row.id, row.input)
        finds["before"] = index.find
    found: dict[str, Found] = defaultdict(Found)
    vocabulary = [token for row in train for token in row.input.split() if any(char.isalnum() for char in token)]
    by_length: dict[str, list[Example]] = defaultdict(list)
    for row in test:
        by_length[bucket(row.input)].append(row)
    draw = random.Random(7)
    for length, rows in by_length.items():
        for name in kinds:
            edit = EDITS[name]
            for row in draw.sample(rows, edited) if len(rows) > edited else rows * (-(-edited // len(rows))):
                text = " ".join(edit(row.input.split(), draw, vocabulary))
                found[length].edited[name] += 1
                for when, find in finds.items():
                    found[length].caught[when, name] += find(text) is not None
    texts = {row.id: row.input for row in test}
    for row in train:
        known = gates["after"].find(row.input)
        if known is not None and known[1] == 1:
            continue
        here = found[bucket(row.input)]
        here.real += 1
        for when, find in finds.items():
            match = find(row.input)
            if match is not None:
                copy = is_copy(row.input, texts[match[0]])
                (here.copies if copy else here.wrong)[when] += 1
                if when == "after":
                    here.read.append((copy, row.input, texts[match[0]]))
    return found


def table(task: str, found: dict[str, Found]) -> list[str]:
    """Markdown; each cell "before -> after" in percent."""
    heads = ["words", "edits", *EDITS, "real rows", "wrongly caught", f"with {SEEDS} seeds", "near copies among them"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for length in sorted(found, key=lambda name: int(name.rstrip("+").partition("-")[0])):
        here = found[length]
        edits = []
        for name in EDITS:
            count = here.edited[name]
            edits.append(_pair(here.caught["before", name], here.caught["after", name], count) if count else "")
        wrong = _pair(here.wrong["before"], here.wrong["after"], here.real) if here.real else ""
        few = f"{_share(here.wrong['after, few'], here.real)}" if here.real else ""
        cells = [length, str(here.edited["case"]), *edits, str(here.real), wrong, few, str(here.copies["after"])]
        lines.append(f"| {' | '.join(cells)} |")
    real = sum(here.real for here in found.values())
    told = {w: _share(sum(here.wrong[w] for here in found.values()), real) for w in ("before", "after", "after, few")}
    lines += [
        "",
        f"{task}, all lengths: {real:,} real rows, wrongly caught before {told['before']} %, after {told['after']} %, "
        f"with {SEEDS} seeds {told['after, few']} %.",
    ]
    return lines


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f}".removesuffix(".0")


def _pair(before: int, after: int, of: int) -> str:
    return f"{_share(before, of)} → {_share(after, of)}"


def unmet(task: str, found: dict[str, Found]) -> list[str]:
    """Where less than 95 % of one-word edits are caught, or more than 2 % of real rows wrongly, from four words on."""
    told = []
    for length, here in found.items():
        if length == "1-3":
            continue
        for name in ONE_WORD:
            if here.edited[name] and here.caught["after", name] < 0.95 * here.edited[name]:
                told.append(f"{task}, {length} words: {name} {_share(here.caught['after', name], here.edited[name])} % caught")
        if here.real and here.wrong["after"] > 0.02 * here.real:
            told.append(f"{task}, {length} words: {_share(here.wrong['after'], here.real)} % of real rows wrongly caught")
    return told


def cost(data: Path) -> Iterable[str]:
    """Seconds of one processor for texts like SST-2's phrases."""
    train, _ = rows_of(data, "sst2")
    gsm, _ = rows_of(data, "gsm8k")
    pool = [row.input for row in (*train, *gsm)]
    draw = random.Random(3)
    yield "| held-out rows | made in, s | per candidate, ms |"
    yield "|---|---|---|"
    for size in (1000, 10_000, 100_000):
        rows = [Example(id=str(k), input=f"{draw.choice(pool)} {draw.choice(pool)}", output="") for k in range(size)]
        begun = time.process_time()
        gate = HeldOut(rows, THRESHOLD)
        made, texts = time.process_time() - begun, [f"{draw.choice(pool)} {draw.choice(pool)}" for _ in range(1000)]
        begun = time.process_time()
        for text in texts:
            gate.find(text)
        yield f"| {size:,} | {made:.2f} | {time.process_time() - begun:.3f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data", help="folder of the five tasks")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--write", type=Path, help="a Markdown file whose part between the marks is replaced")
    parser.add_argument("--read", type=Path, help="write the real rows that were caught, with their test rows")
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    if given.cost:
        print("\n".join(cost(given.data)))
        return 0
    lines: list[str] = []
    missed: list[str] = []
    read = []
    for task in given.tasks:
        found = measured(*rows_of(given.data, task))
        lines += [f"### {task}", "", *table(task, found), ""]
        missed += unmet(task, found)
        read += [{"task": task, "copy": c, "row": a, "test": b} for here in found.values() for c, a, b in here.read]
    lines += [
        "Not met:" if missed else "Both criteria are met at every length from 4 words.",
        "",
        *(f"- {line}" for line in missed),
    ]
    print("\n".join(lines))
    if given.write:
        head, _, rest = given.write.read_text(encoding="utf-8").partition(BEGIN)
        given.write.write_text("\n".join([f"{head}{BEGIN}", "", *lines, "", f"{END}{rest.partition(END)[2]}"]), encoding="utf-8")
    if given.read:
        given.read.write_text("".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in read), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
