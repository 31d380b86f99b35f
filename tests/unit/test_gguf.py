"""A packed model becomes a folder: the values its blocks stand for, in the model's own layout, in little more memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.models.gguf_memory import MOST, SMALL, Shape, measure, write_qwen2
from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.models import gguf
from llm2llm_ray.runtime.models.gguf import convert_gguf

TINY = Shape(vocabulary=40, hidden=64, between=96, layers=2, heads=4, kv_heads=2)


def write_llama(path: Path, *, leave_out: str = "", **more: Any) -> None:
    """One layer, hidden 32, 2 heads of 16, 1 for keys. A packed row r stands for r, r + 0.5, ..., r + 7.5, twice."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|end|>", *"abcdef", "ab"])
    writer.add_token_types([3] + [1] * 7)
    writer.add_token_merges(["a b"])
    if more.get("ends", True):
        writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    sizes = {"token_embd": 8, "blk.0.attn_q": 32, "blk.0.attn_k": 16, "blk.0.attn_v": 16, "blk.0.attn_output": 32}
    sizes |= {f"blk.0.ffn_{name}": 32 for name in ("gate", "up", "down")} | dict.fromkeys(more.get("heads", ()), 8)
    for name, rows in sizes.items():
        if name != leave_out:
            writer.add_tensor(f"{name}.weight", packed_rows(rows), raw_dtype=GGMLQuantizationType.Q4_1)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def packed_rows(rows: int) -> np.ndarray:
    """A block of Q4_1 per row: scale 0.5, minimum r, in byte i the quants i and i: r + i / 2 at places i and i + 16."""
    blocks = np.zeros((rows, 20), np.uint8)
    blocks[:, 0:2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    blocks[:, 2:4] = np.arange(rows, dtype=np.float16)[:, None].view(np.uint8)
    blocks[:, 4:] = np.arange(16, dtype=np.uint8) * 17
    return blocks


def row(number: int) -> list[float]:
    return [number + i / 2 for i in range(16)] * 2


def test_blocks_become_the_values_they_stand_for_and_rows_go_where_the_model_has_them(tmp_path: Path) -> None:
    write_llama(tmp_path / "m.gguf")
    (tmp_path / "out").mkdir()
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", "float32")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found["model.embed_tokens.weight"].tolist() == [row(n) for n in range(8)]
    assert found["model.layers.0.mlp.down_proj.weight"].tolist() == [row(n) for n in range(32)]
    # llama.cpp turns neighbours (0 1), (2 3), ..., transformers the halves of a head: its row 1 is the file's row 2, and so on.
    of_a_head = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15]
    assert found["model.layers.0.self_attn.k_proj.weight"].tolist() == [row(n) for n in of_a_head]
    both = [*of_a_head, *(16 + n for n in of_a_head)]
    assert found["model.layers.0.self_attn.q_proj.weight"].tolist() == [row(n) for n in both]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_reads_the_same_from_the_folder_as_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    monkeypatch.setattr(gguf, "_FLOATS_AT_ONCE", 1000)  # several times in each matrix
    monkeypatch.setattr(gguf, "_SHARD", "100KB")
    write_qwen2(tmp_path / "m.gguf", TINY)
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "m.gguf", out, dtype)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).to(getattr(torch, dtype))
    found = AutoModelForCausalLM.from_pretrained(out)
    assert found.dtype == expected.dtype == getattr(torch, dtype)
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name
    assert len(list(out.glob("*.safetensors"))) > 1
    assert "lm_head.weight" not in json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert found.lm_head.weight is found.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer("abc").input_ids, tokenizer.eos_token_id) == ([27, 3], 0)  # "ab" is the only merge


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    write_llama(tmp_path / "m.gguf", heads=("output",))
    (tmp_path / "out").mkdir()
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", "float32")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as found:
        assert "lm_head.weight" in found.keys()  # noqa: SIM118
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def cut(path: Path) -> None:
    """The file's end is lost."""
    last = max(GGUFReader(path).tensors, key=lambda tensor: tensor.data_offset)
    with path.open("r+b") as stream:
        stream.truncate(last.data_offset)


def of_another_kind(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"llama", b"lamma"))


@pytest.mark.parametrize(
    ("settings", "spoil", "told"),
    [
        ({"leave_out": "blk.0.ffn_up"}, None, r"no tensor for 1 of the 11 weights .*mlp\.up_proj"),
        ({"ends": False}, None, "no end-of-text token"),
        ({}, cut, "cannot read it"),
        ({}, of_another_kind, "cannot read it"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_whole_model_is_said_to_be_so(
    tmp_path: Path, settings: dict[str, Any], spoil: Callable[[Path], None] | None, told: str
) -> None:
    source = tmp_path / "m.gguf"
    write_llama(source, **settings)
    if spoil:
        spoil(source)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=told):
        convert_gguf(source, tmp_path / "out", "float32")
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak's unit")
def test_a_conversion_takes_little_more_memory_than_the_weights_it_writes(tmp_path: Path) -> None:
    write_qwen2(tmp_path / "m.gguf", SMALL)
    found = measure(tmp_path / "m.gguf", tmp_path / "out", "float32")
    assert found["written_bytes"] > 4 * 100_000_000
    assert found["peak_bytes"] - found["imports_bytes"] < MOST * found["written_bytes"]
