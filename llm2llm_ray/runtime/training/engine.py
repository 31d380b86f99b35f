"""A DeepSpeed engine around a Hugging Face model: how it is started, saved, restored, and what it says about itself.

Invariant: a checkpoint counts from the moment Ray Train has committed it, and `save` returns only then. Which rows are
trained on, and how, is the worker's business.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import socket
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.machine import Device, memory
from llm2llm_ray.runtime import environment
from llm2llm_ray.runtime.training.deepspeed_config import (
    clips_itself,
    deepspeed_config,
    gradients_are_float32_themselves,
    precision_of,
    zero_stage_of,
)
from llm2llm_ray.runtime.training.optimizer import ClippingAdamW, optimizer_of

_OF = "-update-"
"""Between a training's name and its updates, in the name of a checkpoint's folder."""


@dataclass(slots=True)
class Progress:
    """What a checkpoint remembers beside weights and optimizer."""

    update: int = 0
    """Updates done."""
    tokens: int = 0
    """Tokens of the rows computed."""
    padded: int = 0
    """The same with padding."""
    seconds: float = 0.0
    loss_first: float = 0.0
    loss_last: float = 0.0
    known: int = 0
    """Of the completion tokens `scored` in the last epoch's worth of updates, those that the model knew."""
    scored: int = 0


def prepare_process(device: Device, threads: int | None) -> torch.device:
    """Device, threads and the traps of DeepSpeed on CPU; everything that must precede the import of deepspeed.

    `threads` are this worker's on CPU; None: the node's cores divided by its workers.
    """
    warnings.filterwarnings("ignore", r"`torch\.distributed", FutureWarning)  # DeepSpeed's calls, once per collective
    if device == "gpu":
        import ray.train.torch

        found = ray.train.torch.get_device()
        torch.cuda.set_device(found)
        return found
    workers_here = int(os.environ["LOCAL_WORLD_SIZE"])
    environment.deepspeed_on_cpu(workers_here)
    import deepspeed.ops

    # DeepSpeed would compile a shared-memory collective (100 s, needs g++) that only its inference uses.
    deepspeed.ops.__compatible_ops__ = {}
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // workers_here))
    return torch.device("cpu")


def import_ahead() -> None:
    """What a training imports, before the first one is there: 10 s of a laptop's processor."""
    import deepspeed
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    _ = deepspeed, peft, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # transformers imports on first use


def let_go(engine: Any) -> None:
    """Take the engine's hooks away, so that it becomes garbage.

    Those that ZeRO 1 and 2 put on the parameters hold the optimizer, and with it all weights and moments, in cycles through torch
    that Python's collector does not see (DeepSpeed 0.19.8; a worker grew by 2.5 GB with each training of a 135M model). ZeRO 3
    keeps its memory all the same.
    """
    engine.destroy()


def release_memory() -> None:
    """After a training: what the engine held is garbage with cycles, and torch and malloc keep what is free.

    The workers wait for the next training beside two engines, which may need the memory now. Where half of it is there for
    whoever asks, it stays, so that the next training need not have it zeroed and mapped again.
    """
    gc.collect()
    if sys.platform == "linux":
        total, available = memory()
        if available < total / 2:
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def start_engine(start: str, student: StudentConfig, *, device: Device, workers: int, micro: int) -> Any:
    """The engine around the model in the folder `start`, with an adapter if `student` wants one."""
    import deepspeed
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    _let_deepspeed_speak()
    random.seed(student.seed)
    torch.manual_seed(student.seed)
    config = deepspeed_config(student, device=device, workers=workers, micro=micro)
    # Held while the weights are read: from_pretrained looks for it, and no rank then ever has the whole model.
    partitioned = HfDeepSpeedConfig(config) if zero_stage_of(student, device) == 3 else None
    dtype = torch.bfloat16 if precision_of(student, device) == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(start, dtype=dtype)
    del partitioned
    if student.method == "lora":
        model = _with_adapter(model, student)
    if device == "cpu" and zero_stage_of(student, device) == 0:  # the other stages copy them anyway
        own_weights(model)
    model.train()
    optimizer = optimizer_of(model, student, clips=clips_itself(student, device))
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    if gradients_are_float32_themselves(student, device):
        for parameter in engine.module.parameters():
            parameter.grad_dtype = torch.float32
    return engine


def own_weights(model: Any) -> None:
    """Take what will be trained off the file: it is mapped, and the first update, which writes to each of its pages, would have
    the kernel copy them one by one.

    2.6 s of processor time for 135M weights. With the copy, into memory that the training before has left, an engine starts in
    the 0.6 s that it took without.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone()


def _let_deepspeed_speak() -> None:
    """Its own lines on the ZeRO stage and the optimizer in the worker's log: the proof of what ran. Silent by default."""
    from deepspeed.utils import logger

    logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        handler.setLevel(logging.INFO)


def _with_adapter(model: Any, student: StudentConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = student.lora
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def take_step(engine: Any) -> float:
    """Apply the gradients; returns their norm over all ranks, as it was before clipping. The same on every rank.

    Not finite: the weights are worthless or, where DeepSpeed has seen it, as they were; DeepSpeed itself would go on.
    """
    if isinstance(engine.optimizer, ClippingAdamW):
        engine.step()
        return float(engine.optimizer.norm)
    if isinstance(engine.optimizer, torch.optim.Optimizer):  # float32 without ZeRO, several workers: nobody keeps the norm
        norm = torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None])
        engine.step()
        return float(norm)
    engine.step()
    return float(engine.get_global_grad_norm())


def engine_report(engine: Any) -> dict[str, Any]:
    """What ran, in the engine's own words."""
    return {
        "zero_stage": engine.zero_optimization_stage(),
        "optimizer": type(engine.optimizer).__name__,
        "basic_optimizer": type(engine.basic_optimizer).__name__,
        "world_size": torch.distributed.get_world_size(),
        "backend": torch.distributed.get_backend(),
        "dtype": str(next(engine.module.parameters()).dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "workers": _everyone(),
    }


def _everyone() -> list[dict[str, Any]]:
    """Host, process and Ray's worker id (which names its log files) of each rank."""
    import ray

    worker = ray.get_runtime_context().get_worker_id() if ray.is_initialized() else None
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, {"host": socket.gethostname(), "pid": os.getpid(), "worker": worker})
    return found


def save(engine: Any, progress: Progress, student: StudentConfig, training: str) -> None:
    """Checkpoint of the training of this name, on all ranks.

    `report` alone is not enough: a worker dying just after it would lose the checkpoint.
    """
    import ray.train
    from ray.train import CheckpointConsistencyMode

    name = f"{progress.update:06d}"
    with tempfile.TemporaryDirectory(prefix="llm2llm-checkpoint-") as folder:
        engine.save_checkpoint(
            os.path.join(folder, "engine"),
            tag=name,
            client_state={"progress": asdict(progress)},
            exclude_frozen_parameters=student.method == "lora",
        )
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"update": progress.update}, checkpoint=checkpoint, checkpoint_dir_name=f"{training}{_OF}{name}")
        ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED, timeout_s=300)


def restore(engine: Any, student: StudentConfig, training: str) -> Progress:
    """Load the last committed checkpoint of the training of this name, if there is one.

    Ray Train offers the group's last checkpoint, which may be of the training before.
    """
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None or not Path(checkpoint.path).name.startswith(f"{training}{_OF}"):
        return Progress()
    with checkpoint.as_directory() as folder:
        _, state = engine.load_checkpoint(os.path.join(folder, "engine"), load_module_strict=student.method != "lora")
    return Progress(**state["progress"])
