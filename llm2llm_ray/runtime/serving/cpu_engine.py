"""On CPU, vLLM's model runs in the engine's own process, not in one more.

vLLM 0.29 takes its multi-process executor on CPU "as it is not possible to set the OMP environment correctly" in one process
(vllm/platforms/cpu.py); ours is set before any process starts, and threads are not bound to cores. Without the second process an
engine is up sooner (45 s and 26 s, bare, on 2 cores), holds one import of vLLM less, and nobody spins on a queue between
the two. What is left in the replica's process, vLLM's client, gives way to the engine (priority.py).

`ray.serve.llm` writes its own choice over `engine_kwargs`, hence a class of its own, named by RAYLLM_VLLM_ENGINE_CLS.
"""

from __future__ import annotations

from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

from llm2llm_ray.runtime.priority import give_way

EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""By its import path: the name "uni" is one that vLLM's CPU platform writes over."""


class CpuEngine(VLLMEngine):
    def _start_async_llm_engine(self, vllm_engine_args: Any, vllm_engine_config: Any, placement_group: Any) -> Any:
        if vllm_engine_config.parallel_config.world_size == 1:
            vllm_engine_config.parallel_config.distributed_executor_backend = EXECUTOR
        client = super()._start_async_llm_engine(vllm_engine_args, vllm_engine_config, placement_group)
        give_way()  # the engine's process stands by now, and has the priority that this one had
        return client
