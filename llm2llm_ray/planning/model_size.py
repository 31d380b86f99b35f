"""How many parameters a model has, without loading it: from what is in its folder, or what its name says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from llm2llm_ray.packaged_models import packaged

_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BMbm])(?![A-Za-z0-9])")


def parameters(model: str) -> int | None:
    """None when neither the folder nor the name tells. Example: parameters("Qwen/Qwen3-0.6B") is 600_000_000, and
    parameters("meta-llama/Llama-2-7b-hf") 7_000_000_000."""
    if known := packaged(model):
        return known.parameters
    folder = Path(model)
    if folder.is_dir():
        files = sorted(folder.glob("*.safetensors"))
        return sum(_in_file(path) for path in files) if files else None
    found = _IN_NAME.findall(model)
    if not found:
        return None
    number, unit = found[-1]
    return round(float(number) * (10**9 if unit in "Bb" else 10**6))


def _in_file(path: Path) -> int:
    """Sum over the shapes in a safetensors file's header: 8 bytes of length, then JSON."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
