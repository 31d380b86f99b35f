"""Licences that we know. What is not in the table is unknown, and a card says so instead of guessing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llm2llm_ray.packaged_models import PACKAGED, packaged

UNKNOWN = "unknown: ask whoever publishes it"
_BY_HUB_ID = {model.upstream.lower(): model.licence for model in PACKAGED.values()}


def hub_id(model: str) -> str | None:
    """The model's Hugging Face id, or None for a folder, whose origin we cannot tell."""
    if known := packaged(model):
        return known.upstream
    if os.path.isdir(model):  # as the run resolves names: a folder goes before the hub
        return None
    owner, slash, name = model.partition("/")
    return model if slash and owner and name and "/" not in name and owner[0] not in ".~" else None


def licence_of(model: str) -> str | None:
    """SPDX-like id as the hub spells it, or None when we do not know."""
    known = (hub_id(model) or "").lower()
    return "apache-2.0" if known.startswith("huggingfacetb/smollm2-") else _BY_HUB_ID.get(known)


def model_name(model: str) -> str:
    """The name to publish: a local path says nothing to others, and may hold a user's name."""
    return hub_id(model) or model.rstrip("/").rpartition("/")[2]


def teacher_name(teacher: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> str:
    """`teacher` is the config's section, `recorded` what a file of replies says of itself.

    Example: "HuggingFaceTB/SmolLM2-360M-Instruct (served by the run)"
    """
    kind = {
        "serve": "served by the run", "openai": "an OpenAI-compatible service", "scripted": "a script of replies",
        "recorded": "recorded replies", "rows": "a file of rows",
    }  # fmt: skip
    if teacher["kind"] == "recorded":
        said = (recorded or {}).get("model") or "an unnamed model"
        return f"{said} ({kind['recorded']}: {model_name(str(teacher['model']))})"
    name = str(teacher["model"]) if teacher["kind"] == "openai" else model_name(str(teacher["model"]))
    if teacher["kind"] == "serve" and (known := packaged(str(teacher["model"]))):
        name += f", rounded to {known.packed}"
    return f"{name} ({kind[str(teacher['kind'])]})"
