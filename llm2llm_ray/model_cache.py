"""Where models that were converted here are kept: LLM2LLM_CACHE, else ~/.cache/llm2llm_ray."""

from __future__ import annotations

import os
from pathlib import Path

CONVERTER_VERSION = 1
"""Part of the folders' names: raised when a conversion writes something else than before."""


def cache_folder() -> Path:
    return Path(os.environ.get("LLM2LLM_CACHE") or Path.home() / ".cache" / "llm2llm_ray")


def converted_folder(package: str, size: int) -> Path:
    """Of the model in `package`, whose packed file has `size` bytes. It is there whole or not at all."""
    return cache_folder() / "models" / f"{package}-{size}-v{CONVERTER_VERSION}"
