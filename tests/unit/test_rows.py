import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.rows import Row, read_rows, shown

FIELDS = ("text", "label")


def read(path: Path | str, columns: dict[str, str] | None = None, split: str = "seed") -> list[tuple[int, Row]]:
    return list(read_rows(path, split=split, columns=columns or {}, needed=FIELDS))


def complaint(path: Path | str, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as raised:
        read(path, columns)
    return str(raised.value)


ROWS: list[dict[str, Any]] = [
    {"text": "Wo ist Köln, bitte?", "label": "LOC"},
    {"text": 'She said "hi"\nWho?', "label": "HUM"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        lines = [",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_three_formats_give_the_same_rows_and_ids(suffix: str, tmp_path: Path) -> None:
    rows = [row for _, row in read(write(tmp_path / f"seed{suffix}", ROWS))]
    assert [{field: row[field] for field in FIELDS} for row in rows] == ROWS
    expected = [row["id"] for _, row in read(write(tmp_path / "other.jsonl", ROWS))]
    assert [row["id"] for row in rows] == expected
    assert all(str(row["id"]).startswith("s-") and len(str(row["id"])) == 14 for row in rows)


def test_ids_come_from_content_and_repeats_are_numbered(tmp_path: Path) -> None:
    first, second = ROWS
    ids = [row["id"] for _, row in read(write(tmp_path / "a.jsonl", [first, second, first, first]))]
    assert ids[2:] == [f"{ids[0]}-2", f"{ids[0]}-3"]
    assert [row["id"] for _, row in read(write(tmp_path / "b.jsonl", [second, first]))] == [ids[1], ids[0]]


def test_an_id_column_wins_and_can_be_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "seed.jsonl", [{**row, "id": number} for number, row in enumerate(ROWS)])
    assert [row["id"] for _, row in read(path)] == ["0", "1"]
    path = write(tmp_path / "seed.csv", [{"uid": f"u{number}", **row} for number, row in enumerate(ROWS)])
    assert [row["id"] for _, row in read(path, {"id": "uid"})] == ["u0", "u1"]


def test_columns_are_mapped_and_others_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "seed.jsonl", [{"sentence": "Where?", "label": 3, "intent": "LOC"}])
    [(_, row)] = read(path, {"text": "sentence", "label": "intent"})
    assert (row["text"], row["label"], row["sentence"]) == ("Where?", "LOC", "Where?")


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": "x"}\r\n\r\n{"text": "b", "label": "x"}')
    assert [line for line, _ in read(tmp_path / "a.jsonl")] == [1, 3]
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"two\r\nlines",x\r\n\r\nb,x\r\n')
    assert [(line, row["text"]) for line, row in read(tmp_path / "a.csv")] == [(2, "two\r\nlines"), (5, "b")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a", "label": "x"}\n{"text": "caf\xe9", "label": "x"}\n', "line 2: invalid UTF-8 at byte 14"),
        (b'{"text": "a", "label": "x"}\n{"text": NaN, "label": "x"}\n', "line 2: malformed JSON (NaN is not JSON)"),
        (
            b'{"txt": "a", "label": "x"}\n',
            "no column text here (columns: txt, label); map them with task.columns: {text: txt}",
        ),
        (b'{"text": null, "label": "x"}\n', "line 1: field text: None is no value: fill it in or remove the row"),
        (b'{"text": " ", "label": "x"}\n', "line 1: field text: the text is blank"),
        (b'{"text": "\\u200b\\u00a0\\ufeff", "label": "x"}\n', "line 1: field text: the text is blank"),
        (b'{"text": "a", "label": "x", "id": [1]}\n', "line 1: id [1]: expected a text or whole number"),
        (b'{"text": "a", "label": "x", "id": true}\n', "line 1: id True: expected a text or whole number"),
        (b"\n \n", "the file has no rows"),
    ],
)
def test_jsonl_complaints(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "seed.jsonl").write_bytes(content)
    message = complaint(tmp_path / "seed.jsonl")
    assert message.startswith(str(tmp_path / "seed.jsonl")) and said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\na,x\nb,c,x\n", "line 3: 3 fields, but the header has 2 (text, label), near 'x'"),
        ('text,label\n"two\nlines",x\nb\n', "line 4: 1 fields, but the header has 2"),
        ('text,label\na,x\n"open,x\nb,x\n', "line 3: malformed CSV"),
        ("text,text\na,x\n", "line 1: column 'text' stands twice in the header"),
        ("text;label\na;x\n", "columns must be separated by commas"),
        ("text,label\n", "the file has no rows"),
    ],
)
def test_csv_complaints(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "seed.csv").write_text(content)
    assert said in complaint(tmp_path / "seed.csv")


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    assert f"sed.jsonl: no such file (in {tmp_path}: train.jsonl)" in complaint(tmp_path / "sed.jsonl")
    assert f"nor a folder {tmp_path / 'no'}" in complaint(tmp_path / "no" / "seed.jsonl")


def test_what_is_no_parquet_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "seed.parquet").write_text("text,label\n")
    assert "seed.parquet: not a readable Parquet file" in complaint(tmp_path / "seed.parquet")
    assert "unknown kind of file: use .jsonl, .csv, .parquet" in complaint(
        write(tmp_path / "a.jsonl", ROWS).rename(tmp_path / "a.txt")
    )


def test_a_null_in_parquet_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "seed.parquet", [{"text": "a", "label": "x"}, {"text": None, "label": "x"}])
    assert "seed.parquet, line 2: field text: None is no value" in complaint(path)


def test_a_mapping_of_a_field_that_is_none_is_refused(tmp_path: Path) -> None:
    message = complaint(write(tmp_path / "seed.jsonl", ROWS), {"txt": "text"})
    assert message.startswith("task.columns: txt: no such field; did you mean text?")


@settings(deadline=None)  # other work shares the cores
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_file_gives_rows_or_a_complaint(tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(b"text,label\n" + content if suffix == ".csv" else content)
    try:
        assert read(path)
    except UserError as error:
        assert f"any{suffix}" in str(error)


@settings(deadline=None)  # other work shares the cores
@given(st.text())
def test_a_shown_value_is_one_short_line(text: str) -> None:
    assert len(shown(text)) <= 60 and len(shown(text).splitlines()) <= 1
