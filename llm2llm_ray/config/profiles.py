"""Placement profiles: where training, student and teacher run on the machines people have. Defaults under a config, no more.

Imports nothing of ours: config.py puts a profile under what the user said, so the resolved config holds plain fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POOL_LABEL = "llm2llm.io/pool"
"""Node label that tells the node groups of a cluster apart; cluster/ starts its nodes with it."""

PROFILES: dict[str, dict[str, Any]] = {
    # A machine without GPU: everything on every core.
    "laptop": {"cluster": {"device": "cpu"}},
    # One GPU for training and both engines in turn. Not run.
    "single-gpu": {
        "cluster": {"device": "gpu", "share_gpu": True, "gpus_per_worker": 0.34, "gpus_per_engine": 0.33},
        "student": {"workers": 1, "engine": {"gpu_memory_utilization": 0.35}},
        "teacher": {"engine": {"gpu_memory_utilization": 0.45}},
    },
    # Eight GPUs in one machine: four train, one answers, three teach. Not run.
    "node-8gpu": {
        "cluster": {"device": "gpu"},
        "student": {"workers": 4, "engine": {"replicas": 1}},
        "teacher": {"engine": {"replicas": 3}},
    },
    # Node groups of a cluster, told apart by label (cluster/ starts its nodes with these).
    "pools": {"cluster": {"labels": {pool: {POOL_LABEL: pool} for pool in ("train", "student", "teacher")}}},
}


def below(given: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the defaults put under it, section by section; what is given wins."""
    merged = dict(given)
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key, {}), dict):
            merged[key] = below(merged.get(key, {}), value)
        else:
            merged.setdefault(key, value)
    return merged
