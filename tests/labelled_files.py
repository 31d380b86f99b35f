"""Files of labelled requests as people have them, for tests of `llm2llm init`: made here, none of them a copy of anybody's."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

ABOUT = {
    "billing": ["the charge on my card", "the invoice for May", "the price of the plan", "a receipt", "the double payment"],
    "shipping": ["the parcel", "the delivery date", "the courier", "an address label", "the tracking page"],
    "login": ["my password", "the two-factor code", "my username", "the locked account", "the reset mail"],
}
ASKED = [
    "Please tell me more about", "I cannot find", "There is a problem with", "Somebody changed", "What happened to",
    "Can you help with", "Where do I look for", "Nobody answers me about",
]  # fmt: skip
WHEN = [
    "since yesterday",
    "after the update",
    "before the weekend",
    "in the mobile app",
    "although I called, twice",
    "for our office",
]


def requests(count: int = 96, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label), no text twice."""
    draw = random.Random(seed)
    every = [
        (f"{asked} {thing} {draw.choice(WHEN)}", label) for label, things in ABOUT.items() for asked in ASKED for thing in things
    ]
    draw.shuffle(every)
    return every[:count]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, delimiter: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([columns, *rows])
    return stream.getvalue()


def any_order(folder: Path) -> Path:
    """Other columns before and between, and line ends inside texts."""
    rows = [
        (f"2026-03-{n % 28 + 1:02}", label, "Hello,\n" * (n % 9 == 0) + text, n % 7 / 2)
        for n, (text, label) in enumerate(requests())
    ]
    path = folder / "any order.csv"
    path.write_text(table(["created", "intent", "message", "minutes"], rows), encoding="utf-8", newline="")
    return path


def semicolons(folder: Path) -> Path:
    """As a spreadsheet writes where the decimal sign is a comma."""
    rows = [(text, f"{n % 40},{n % 100:02}", label) for n, (text, label) in enumerate(requests(seed=1))]
    path = folder / "semicolons.csv"
    path.write_text(table(["Text", "Betrag", "Kategorie"], rows, delimiter=";"), encoding="utf-8", newline="")
    return path


def byte_order_mark(folder: Path) -> Path:
    path = folder / "bom.csv"
    path.write_text(
        table(["text", "label"], [(f"Grüße! {text}", label) for text, label in requests(seed=2)]),
        encoding="utf-8-sig",
        newline="",
    )
    return path


def numeric_labels(folder: Path) -> Path:
    names = list(ABOUT)
    path = folder / "numbers.tsv"
    path.write_text(
        table(["sentence", "label"], [(text, names.index(label)) for text, label in requests(seed=3)], delimiter="\t"),
        encoding="utf-8",
        newline="",
    )
    return path


def ids_and_contradictions(folder: Path) -> Path:
    """An id of its own in every row; three of a hundred rows stand a second time, with another label."""
    rows = requests(seed=4)
    names = list(ABOUT)
    again = [(text, names[(names.index(label) + 1) % 3]) for text, label in rows[10:13]]
    path = folder / "ids.csv"
    numbered = [(f"T-{1000 + 7 * n}", text, label) for n, (text, label) in enumerate([*rows, *again])]
    path.write_text(
        table(["ticket", "ticket_id", "body", "queue"], [("open", *row) for row in numbered]), encoding="utf-8", newline=""
    )
    return path


FILES = [any_order, semicolons, byte_order_mark, numeric_labels, ids_and_contradictions]
