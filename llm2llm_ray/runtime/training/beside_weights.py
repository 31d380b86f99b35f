"""What a student's folder takes over from the model it started from, byte by byte: tokenizer and generation settings.

Training changes neither, and writing them anew can fail (transformers refuses to write generation settings that it reads) or
change what they say. On top of it, the names by which transformers 4 reads a folder that transformers 5 has written; both then
find the same tokenizer and the same positions. Nothing here imports transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

GENERATION = "generation_config.json"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATES = "additional_chat_templates"
TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def keep_generation_config(start: Path, folder: Path) -> None:
    """Where `start` has none, none: readers then take what config.json says."""
    (folder / GENERATION).unlink(missing_ok=True)
    if (start / GENERATION).is_file():
        shutil.copyfile(start / GENERATION, folder / GENERATION)


def keep_tokenizer(start: Path, folder: Path, tokenizer: Any) -> None:
    """The files that `tokenizer` was read from; one without `tokenizer.json`, which had to be converted, is written anew."""
    if not (start / TOKENIZER).is_file():
        tokenizer.save_pretrained(folder)
        return
    for name in {*TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}:
        if (start / name).is_file():
            shutil.copyfile(start / name, folder / name)
    if (start / CHAT_TEMPLATES).is_dir():
        shutil.copytree(start / CHAT_TEMPLATES, folder / CHAT_TEMPLATES)


def say_what_transformers_4_reads(folder: Path) -> None:
    """The class of fast tokenizers, extra special tokens and rotary positions, under the names that both versions know."""
    if (folder / TOKENIZER_CONFIG).is_file():
        _rewrite(folder / TOKENIZER_CONFIG, _tokenizer_config)
    _rewrite(folder / CONFIG, _model_config)


def _rewrite(path: Path, change: Any) -> None:
    before = json.loads(path.read_text(encoding="utf-8"))
    after = change(before)
    if after != before:
        path.write_text(json.dumps(after, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    found = dict(config)
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(found.get("extra_special_tokens"), list):  # transformers 4 expects a dict there, and reads a list elsewhere
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    return found


def _model_config(config: dict[str, Any]) -> dict[str, Any]:
    """Without `rope_theta` beside them, transformers 4 would take a model's default for it and say nothing."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:  # none, or one for each kind of layer
        return config
    found = {"rope_theta": rope["rope_theta"]}
    if "partial_rotary_factor" in rope:
        found["partial_rotary_factor"] = rope["partial_rotary_factor"]
    scaling = {name: value for name, value in rope.items() if name not in found}
    if scaling not in ({}, {"rope_type": "default"}):
        found["rope_scaling"] = scaling
    return found | config
