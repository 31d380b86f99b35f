"""`student.engine` and `teacher.engine`: the vLLM engine that each of the two is served by."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from llm2llm_ray.config.secrets import secrets_in
from llm2llm_ray.config.section import Section


class EngineConfig(Section):
    """One vLLM engine behind a Ray Serve deployment."""

    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    """Autoscale between `replicas` and this on the number of requests in flight; None keeps `replicas`."""
    max_model_len: int = Field(default=1024, ge=16)
    """Tokens of prompt plus answer."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Sequences the engine computes at once."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """auto: bfloat16 where the processor computes it, else float32 (2 to 3 times as fast on CPUs that only emulate it)."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """CPU only: memory of the key-value cache. On GPU vLLM takes `gpu_memory_utilization`."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    tensor_parallel: int = Field(default=1, ge=1)
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to vLLM as they are, last. Stored with the run, so never a token."""

    @field_validator("engine_kwargs")
    @classmethod
    def _no_secrets(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in secrets_in(given):
            raise ValueError(f"{name} looks like a key, and this is stored with the run; put it into HF_TOKEN in the environment")
        return given
