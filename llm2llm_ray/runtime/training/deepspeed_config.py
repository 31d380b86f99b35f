"""From the student's settings to DeepSpeed's JSON. Says nothing about models, data or Ray.

The optimizer is torch's AdamW on every device, handed to DeepSpeed by the worker: DeepSpeed's own Adams are compiled on first
use, which needs a compiler (nvcc on GPU) on every node and takes minutes. With `offload: cpu` that is slower than its CPUAdam.
"""

from __future__ import annotations

from typing import Any, Literal

from llm2llm_ray.config import StudentConfig
from llm2llm_ray.machine import Device

Precision = Literal["bf16", "fp32"]

BUCKET_ELEMENTS = 50_000_000
"""Elements reduced or gathered at once: 200 MB in float32, where DeepSpeed's default would take 2 GB of host memory."""


def precision_of(student: StudentConfig, device: Device) -> Precision:
    if student.precision == "auto":
        return "bf16" if device == "gpu" else "fp32"
    return student.precision


def zero_stage_of(student: StudentConfig, device: Device) -> int:
    if student.zero_stage != "auto":
        return student.zero_stage
    alone = student.workers == 1 and student.offload == "none" and precision_of(student, device) == "fp32"
    return 0 if alone else 2


def clips_itself(student: StudentConfig, device: Device) -> bool:
    """Whether the optimizer clips gradients as it reads them (optimizer.py): it alone steps then, with whole gradients. Only one
    worker: several must clip by the same norm to the last bit, or their weights drift apart."""
    return student.workers == 1 and zero_stage_of(student, device) == 0 and precision_of(student, device) == "fp32"


def gradients_are_float32_themselves(student: StudentConfig, device: Device) -> bool:
    """Whether torch has to sum bfloat16 weights' gradients in float32, because DeepSpeed has no such sums without ZeRO."""
    return precision_of(student, device) == "bf16" and zero_stage_of(student, device) == 0


def deepspeed_config(student: StudentConfig, *, device: Device, workers: int, micro: int) -> dict[str, Any]:
    """DeepSpeed's config for `micro` examples per pass and worker.

    Gradients are summed over passes and ranks in float32 whatever the weights are: a sum in bfloat16, which is DeepSpeed's
    default for bfloat16 weights, loses what is below a 256th of it, so that the hundredth pass hardly counts.

    The worker marks the last pass of an update itself (their number varies), so `gradient_accumulation_steps` is only the
    usual number of passes; offloading allocates its accumulation buffers when it is above 1.
    """
    accumulation = max(2, -(-student.global_batch_size // (micro * workers)))
    stage = zero_stage_of(student, device)
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        "overlap_comm": device == "gpu",
    }
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if student.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device == "gpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": device == "gpu"}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0 if clips_itself(student, device) else student.gradient_clipping,
        "bf16": {"enabled": precision_of(student, device) == "bf16", "immediate_grad_update": True},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "wall_clock_breakdown": False,
        "steps_per_print": 1_000_000_000,
    }
    if not gradients_are_float32_themselves(student, device):
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
