"""What a student's folder takes over from its base, and how transformers 4 finds it there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm2llm_ray.runtime.training.beside_weights import keep_generation_config, keep_tokenizer, say_what_transformers_4_reads

TOKENIZER = SimpleNamespace(vocab_files_names={"vocab_file": "vocab.json"})


@pytest.fixture
def start(tmp_path: Path) -> Path:
    (tmp_path / "start").mkdir()
    return tmp_path / "start"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "student").mkdir()
    return tmp_path / "student"


def test_generation_settings_that_transformers_refuses_to_write_are_kept_as_they_were(start: Path, folder: Path) -> None:
    said = '{"do_sample": false,   "temperature": 0.9}'
    (start / "generation_config.json").write_text(said)
    (folder / "generation_config.json").write_text("{}")
    keep_generation_config(start, folder)
    assert (folder / "generation_config.json").read_text() == said


def test_a_base_without_generation_settings_gives_none(start: Path, folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")
    keep_generation_config(start, folder)
    assert list(folder.iterdir()) == []


def test_the_tokenizers_files_are_kept_and_nothing_else(start: Path, folder: Path) -> None:
    kept = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json")
    for name in (*kept, "trainer_state.json", "README.md", "adapter_config.json"):
        (start / name).write_text(name)
    (start / "additional_chat_templates").mkdir()
    (start / "additional_chat_templates" / "tools.jinja").write_text("x")
    keep_tokenizer(start, folder, TOKENIZER)
    assert {path.name for path in folder.iterdir()} == {*kept, "additional_chat_templates"}
    assert all((folder / name).read_text() == name for name in kept)
    assert (folder / "additional_chat_templates" / "tools.jinja").read_text() == "x"


def test_a_tokenizer_that_had_to_be_converted_is_written_anew(start: Path, folder: Path) -> None:
    (start / "vocab.json").write_text("{}")
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: (folder / "tokenizer.json").write_text("{}"))
    keep_tokenizer(start, folder, tokenizer)
    assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]


def read_by_4(folder: Path, tokenizer: dict[str, Any], model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(model))
    say_what_transformers_4_reads(folder)
    return json.loads((folder / "tokenizer_config.json").read_text()), json.loads((folder / "config.json").read_text())


def test_what_transformers_5_writes_is_named_as_4_reads_it(folder: Path) -> None:
    llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    tokenizer, model = read_by_4(
        folder,
        {
            "tokenizer_class": "TokenizersBackend",
            "backend": "tokenizers",
            "extra_special_tokens": ["<|a|>"],
            "eos_token": "b",
        },
        {"model_type": "llama", "rope_parameters": llama3},
    )
    assert tokenizer == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "backend": "tokenizers",
        "additional_special_tokens": ["<|a|>"],
        "eos_token": "b",
    }
    assert model == {
        "model_type": "llama",
        "rope_parameters": llama3,
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }


def test_plain_positions_need_their_base_only(folder: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 100000.0, "partial_rotary_factor": 0.5}
    _, model = read_by_4(folder, {}, {"rope_parameters": rope})
    assert model == {"rope_parameters": rope, "rope_theta": 100000.0, "partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("tokenizer", "model"),
    [
        ({"tokenizer_class": "Qwen2Tokenizer", "extra_special_tokens": {}}, {"rope_theta": 1000000.0}),
        ({}, {"rope_parameters": {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}}),
    ],
)
def test_what_both_read_stays_as_it_was(folder: Path, tokenizer: dict[str, Any], model: dict[str, Any]) -> None:
    assert read_by_4(folder, tokenizer, model) == (tokenizer, model)
