"""The model of a GGUF file as a Hugging Face folder, written shard by shard.

Invariant: beside the shard being filled, one tensor is held in float32; a process that converts 1.5B weights stays below 1.3
times the weights it writes, its imports included (benchmarks/models/gguf_memory.py). Names and layouts are transformers' own: its
tables say which tensor is which, and its processors undo what llama.cpp did to it (rows of queries and keys in another order,
for one).
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from llm2llm_ray.errors import UserError

_SHARD = "1GB"
_FLOATS_AT_ONCE = 4 << 20
"""That are unpacked together: what unpacking needs beside its result is several times them."""


def convert_gguf(source: Path, target: Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """Write model, config and tokenizer into the folder `target`, the weights as `dtype`; a tied head is written once.

    float32 keeps packed values as they are (scale * q + minimum of a Q4_1 block has more digits than bfloat16 does). Raises
    UserError for what transformers cannot read whole, and for a tokenizer that cannot chat or end a text.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        config = AutoConfig.from_pretrained(**where)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        packed = _PackedTensors(source, model)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{source}: transformers cannot read it: {error}") from error
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        raise UserError(f"{source}: its tokenizer has no chat template or no end-of-text token")
    _write_weights(packed, model, target)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(target)
    model.generation_config.save_pretrained(target)
    tokenizer.save_pretrained(target)


class _PackedTensors:
    """The file's tensors under the names that `model` has for them."""

    def __init__(self, source: Path, model: Any) -> None:
        from gguf import GGUFReader
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
            load_gguf_checkpoint,
        )

        settings = load_gguf_checkpoint(str(source))["config"]
        self.source = source
        self._reader = GGUFReader(source)
        self._pages: Any = self._reader.data.base
        architecture = self._reader.fields["general.architecture"].contents()
        self._processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=settings)
        self._names = get_gguf_hf_weights_map(model, self._processor)
        self._tensors = {self._names[t.name]: t for t in self._reader.tensors if t.name in self._names}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def read(self, name: str) -> torch.Tensor:
        """In float32, in the model's layout."""
        tensor = self._tensors[name]
        weights = _unpacked(tensor)
        # Pages of the file count as this process's own as long as they are mapped.
        self._pages.madvise(mmap.MADV_DONTNEED)
        done = self._processor.process(
            weights=weights, name=tensor.name, tensor_key_mapping=self._names, parsed_parameters={"tensors": {}}
        )
        return torch.from_numpy(np.ascontiguousarray(done.weights))


def _unpacked(tensor: Any) -> Any:
    """The tensor as a float32 array."""
    from gguf import dequantize

    packed, shape = tensor.data, tuple(int(n) for n in reversed(tensor.shape))  # GGUF names the fastest dimension first
    whole = np.empty(shape, np.float32)
    rows = max(1, _FLOATS_AT_ONCE * shape[0] // whole.size)
    for start in range(0, shape[0], rows):
        whole[start : start + rows] = dequantize(packed[start : start + rows], tensor.tensor_type)
    return whole


def _write_weights(packed: _PackedTensors, model: Any, target: Path) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    wanted = {name: weight for name, weight in model.state_dict().items() if name not in model.all_tied_weights_keys}
    if missing := [name for name in wanted if name not in packed]:
        raise UserError(
            f"{packed.source}: has no tensor for {len(missing)} of the {len(wanted)} weights of {type(model).__name__}, "
            f"such as {missing[0]}; models whose experts are merged are not read"
        )
    plan = split_torch_state_dict_into_shards(wanted, max_shard_size=_SHARD, filename_pattern="model{suffix}.safetensors")
    for file, names in plan.filename_to_tensors.items():
        shard = {name: packed.read(name).to(wanted[name].dtype) for name in names}
        for name, weight in shard.items():
            if weight.shape != wanted[name].shape:
                raise UserError(f"{packed.source}: {name} is {tuple(weight.shape)}, not {tuple(wanted[name].shape)}")
        save_file(shard, target / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
