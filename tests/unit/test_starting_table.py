"""Files out of spreadsheets and databases come out as the rows that were put in, or are refused with line and remedy."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.errors import UserError
from llm2llm_ray.starting.table import DELIMITERS, as_text, decoded, delimiter_of, read_table

NAMES = st.lists(st.text("abcxyzäß_ ", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=2, max_size=4, unique=True)
CELLS = st.text(
    st.one_of(st.sampled_from(",;\t\"\n'| 0123."), st.characters(codec="utf-8", exclude_characters="\0\r")), max_size=12
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(NAMES)
    rows = draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=8))
    return names, rows


def separated(names: list[str], rows: list[list[str]], delimiter: str, newline: str, quoting: int = csv.QUOTE_MINIMAL) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows([names, *rows])  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@given(table=tables(), delimiter=st.sampled_from(list(DELIMITERS)), newline=st.sampled_from(["\n", "\r\n"]), all_=st.booleans())
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    encoding: str,
    table: tuple[list[str], list[list[str]]],
    delimiter: str,
    newline: str,
    all_: bool,
) -> None:
    names, rows = table
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(separated(names, rows, delimiter, newline, csv.QUOTE_ALL if all_ else csv.QUOTE_MINIMAL).encode(encoding))
    found = read_table(path)
    assert found.columns == tuple(names) and DELIMITERS[delimiter] in found.read_as
    assert [[row[name] for name in names] for _, row in found.rows] == [[as_text(value) for value in row] for row in rows]


@given(text=st.text(max_size=300), names=NAMES)
def test_any_text_is_read_or_refused_with_its_name(tmp_path_factory: pytest.TempPathFactory, text: str, names: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "some.csv"
    path.write_bytes(f"{','.join(names)}\n{text}".encode("utf-8", "surrogatepass"))
    try:
        assert read_table(path).rows
    except UserError as error:
        assert "some.csv" in str(error)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("text,label\nHello; you; there,billing\nA; b,login\n", ","),
        ("text;amount;label\nHello, you;3,50;billing\nWhat, now;4,20;login\n", ";"),
        ("text\tlabel\nHello, you; there\tbilling\n", "\t"),
        ('"text";"label"\n"a, b\nc; d";"x"\n', ";"),
        ("name, first;text;label\nA, B;Hello;billing\nC;What now;login\n", ";"),
        ("text\nHello\n", ","),
        ("", ","),
    ],
)
def test_a_delimiter_is_known_by_the_header_and_by_rows_of_one_length(text: str, delimiter: str) -> None:
    assert delimiter_of(text) == delimiter


def test_lines_are_those_of_the_file_also_behind_line_ends_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbftext;label\r\n"two\r\nlines";x\r\n\r\nb;y\r\n')
    found = read_table(path)
    assert [(line, row["text"], row["label"]) for line, row in found.rows] == [(2, "two\r\nlines", "x"), (5, "b", "y")]
    assert found.read_as == "semicolons between columns, UTF-8 with a byte order mark"


def test_numbers_booleans_and_nothing_are_text(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 3, "score": 1.5},
        {"text": "b", "label": 0, "extra": True},
        {"text": None, "label": 3, "list": [1]},
    ]
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"rows{suffix}"
        if suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig")
        else:
            every = {name: None for row in rows for name in row}
            pq.write_table(pa.Table.from_pylist([{**every, **row} for row in rows]), path)
        found = read_table(path)
        assert [row["label"] for _, row in found.rows] == ["3", "0", "3"]
        assert [row.get("score", "") for _, row in found.rows] == ["1.5", "", ""]
        assert [row.get("extra", "") for _, row in found.rows] == ["", "true", ""]
        assert found.rows[2][1]["text"] == "" and found.nested == {"list"}
    assert [as_text(value) for value in (2.0, float("nan"), " a ", "\u200b", "\u00a0")] == ["2", "", "a", "", ""]


def test_what_windows_wrote_is_refused_with_how_it_would_read_and_read_once_named(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_bytes("text;label\nGuten Tag;x\nFür später; ok\n".encode("cp1252"))
    with pytest.raises(UserError) as refused:
        read_table(path)
    assert f"{path}, line 3: not UTF-8 at byte 2." in str(refused.value) and "Für später" in str(refused.value)
    assert "--encoding cp1252" in str(refused.value)
    assert [row["text"] for _, row in read_table(path, "cp1252").rows] == ["Guten Tag", "Für später"]
    with pytest.raises(UserError, match="--encoding cp-1: no such encoding"):
        read_table(path, "cp-1")
    with pytest.raises(UserError, match="not UTF-16-LE: "):
        decoded(b"abc", "x", "utf-16-le")


def test_utf_16_is_read_by_its_mark_and_refused_without() -> None:
    assert decoded("a\tb".encode("utf-16"), "x") == ("a\tb", "UTF-16")
    with pytest.raises(UserError, match="UTF-16 without a byte order mark: say so with --encoding utf-16-le"):
        decoded("a\tb".encode("utf-16-le"), "x")
    assert decoded("a\tb".encode("utf-16-le"), "x", "utf-16-le")[0] == "a\tb"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\na,x\nb,c,x\n", "line 3: 3 fields, but the header has 2 (text, label)"),
        ("a.csv", "text;label\na;b;x\n", "put double quotes around a text with a semicolon in it"),
        ("a.csv", "text,label\n", "the file has no rows"),
        ("a.csv", "", "the file has no rows"),
        ("a.csv", 'text,label\na,"open\n', "line 2: malformed CSV"),
        ("a.jsonl", '{"text": "a"}\nno\n', "line 2: malformed JSON"),
        ("a.jsonl", '{"re\\u0301": 1, "r\\u00e9": 2}\n', "line 1: column 'ré' stands twice, spelled alike"),
        ("a.json", "[]", "unknown kind of file: init reads .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_table(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name)) and said in str(refused.value)
