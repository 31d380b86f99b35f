"""A trained engine as a plain Hugging Face folder that transformers and vLLM load: merged weights, tokenizer, config.

Invariants: a folder that has `_student.json` is complete; that file is there from the rename on, or is uploaded last. Weights
keep the precision they were trained in. All but weights and config is as it was where training started (beside_weights.py).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from pyarrow import fs

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.runtime.models.hand_off import FILE, Told
from llm2llm_ray.runtime.training.beside_weights import keep_generation_config, keep_tokenizer, say_what_transformers_4_reads
from llm2llm_ray.storage.files import Files

MARKER = "_student.json"
"""Holds the training's metrics."""
ADAPTER = "adapter"


def early_folder(target: str) -> str:
    """Of the snapshot of the student whose folder is `target`. Example: "students/000-1f0a5ce9d2b4-early"."""
    return f"{target}-early"


def exported(files: Files, target: str) -> dict[str, Any] | None:
    """The metrics of the student at `target`, or None when there is no complete one."""
    path = f"{target}/{MARKER}"
    return dict(files.read_json(path)) if files.exists(path) else None


def export_student(
    engine: Any,
    tokenizer: Any,
    metrics: dict[str, Any],
    told: Told,
    *,
    start: str,
    student: StudentConfig,
    files: Files,
    target: str,
) -> None:
    """Called by all ranks (ZeRO-3 gathers); rank 0 writes. Returns on every rank when the folder is in place.

    `told` is what the engine says of a few completions, by which whoever loads the folder knows that it has these weights.
    """
    lora = student.method == "lora"
    if engine.zero_optimization_stage() == 3:
        weights = engine._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=lora)
    else:
        weights = engine.module_state_dict(exclude_frozen_parameters=lora)
    if torch.distributed.get_rank() == 0:
        _write(engine.module, tokenizer, weights, metrics, told, start=start, lora=lora, files=files, target=target)
    torch.distributed.barrier()


def _write(
    module: Any,
    tokenizer: Any,
    weights: dict[str, torch.Tensor],
    metrics: dict[str, Any],
    told: Told,
    *,
    start: str,
    lora: bool,
    files: Files,
    target: str,
) -> None:
    if exported(files, target) is not None:
        return
    place = None if files.local_root is None else Path(files.absolute(target))
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=place.parent if place else None))
    try:
        if lora:
            _write_merged(module, weights, start, scratch)
        else:
            _save(module, scratch, state_dict=weights)
        keep_generation_config(Path(start), scratch)
        keep_tokenizer(Path(start), scratch, tokenizer)
        say_what_transformers_4_reads(scratch)
        (scratch / FILE).write_bytes(told.written())
        if place is not None:
            (scratch / MARKER).write_text(json.dumps(metrics, indent=1))
            _open_to_all(scratch)
            scratch.rename(place)
        else:
            filesystem, folder = fs.FileSystem.from_uri(files.absolute(target))
            fs.copy_files(str(scratch), folder, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)
            files.replace(f"{target}/{MARKER}", json.dumps(metrics, indent=1).encode())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """mkdtemp and safetensors make things their owner's alone; another user's engine or report may have to read them."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_merged(module: Any, weights: dict[str, torch.Tensor], start: str, folder: Path) -> None:
    """The adapter by itself, and the base model with it merged in.

    Merged into a base read anew in float32: under ZeRO-3 no rank has the base's weights, and bfloat16 sums would lose more of a
    small adapter than training in bfloat16 does.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ups = [tensor for name, tensor in weights.items() if "lora_B" in name]
    if not ups or all(tensor.numel() == 0 or not tensor.any() for tensor in ups):
        raise RuntimeError("the trained adapter is empty or zero: its weights were not gathered")
    module.save_pretrained(folder / ADAPTER, state_dict=weights)
    base = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(folder / ADAPTER)).merge_and_unload()
    _save(merged.to(next(iter(weights.values())).dtype), folder)


def _save(model: Any, folder: Path, **how: Any) -> None:
    """Weights and config. Without the model's generation settings: transformers reads ones that it refuses to write."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    model.save_pretrained(folder, **how)
