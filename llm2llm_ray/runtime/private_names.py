"""Every name of Ray, vLLM, DeepSpeed and transformers that we lean on and that they do not promise to keep.

A quick test looks each of them up in the installed sources, and another finds uses in `runtime/` that are not listed here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrivateName:
    """Example: PrivateName("ray.serve.deployment", "Application._bound_deployment", "serving/engines.py", "…", "…")"""

    module: str
    name: str
    """A class, function or constant of the module, or Class.member: a method, or an attribute that the class's code sets."""
    used_in: str
    """File below runtime/."""
    why: str
    shown_by: str
    """file::test below tests/ in which what it does for us would be missed, beside the look-up."""


PRIVATE_NAMES = (
    PrivateName(
        "ray.serve.deployment",
        "Application._bound_deployment",
        "serving/engines.py",
        "deployed again under the same version an application is scaled in place; Serve would invent a version and restart all",
        "unit/test_private_names.py::test_a_version_can_be_given_to_a_bound_deployment",
    ),
    PrivateName(
        "ray.llm._internal.serve.core.server.llm_server",
        "LLMServer",
        "serving/server.py",
        "the server that `ray.serve.llm` deploys, to which ours adds `ask` and `load`",
        "integration/test_engines.py::test_after_each_reload_replies_carry_the_sha_and_agree_with_transformers",
    ),
    PrivateName(
        "ray.llm._internal.serve.core.server.llm_server",
        "LLMServer._start_engine",
        "serving/server.py",
        "starts the engine, and then a detached actor that reports usage and would outlive the run",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray.llm._internal.serve.engines.vllm.vllm_engine",
        "VLLMEngine._engine_client",
        "serving/server.py",
        "vLLM's own client takes token ids and gives back ids and log-probabilities",
        "integration/test_engines.py::test_after_each_reload_replies_carry_the_sha_and_agree_with_transformers",
    ),
    PrivateName(
        "ray.llm._internal.serve.engines.vllm.vllm_engine",
        "VLLMEngine._start_async_llm_engine",
        "serving/cpu_engine.py",
        "the only place between Ray's choice of an executor and the start of the engine",
        "integration/test_engines.py::test_after_each_reload_replies_carry_the_sha_and_agree_with_transformers",
    ),
    PrivateName(
        "ray.llm._internal.serve.constants",
        "RAYLLM_VLLM_ENGINE_CLS_ENV",
        "environment.py",
        "names the variable by which our engine class is found",
        "unit/test_environment.py::test_their_readers_still_have_these_names",
    ),
    PrivateName(
        "ray.llm._internal.common.callbacks.base",
        "CallbackBase.on_before_node_init",
        "serving/server.py",
        "keeps Ray from sending a task that imports all of vLLM to look for a model that is there",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray.llm._internal.common.callbacks.base",
        "CallbackCtx.run_init_node",
        "serving/server.py",
        "what that callback switches off",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray.serve._private.constants",
        "SERVE_CONTROLLER_NAME",
        "driver/leftovers.py",
        "asking Serve for its status would start it where nothing was left behind",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray.serve._private.constants",
        "SERVE_NAMESPACE",
        "driver/leftovers.py",
        "with the one before",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray._private.ray_constants",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV",
        "connection.py",
        "read from the environment when Ray is imported, which is before we know whether the Ray is ours",
        "unit/test_environment.py::test_behind_uv_run_workers_are_started_as_we_were",
    ),
    PrivateName(
        "ray._private.worker",
        "Worker.node",
        "driver/evidence.py",
        "where this session's logs lie, from which the evidence is copied",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray._private.node",
        "Node.get_session_dir_path",
        "driver/evidence.py",
        "with the one before",
        "integration/test_loop.py::test_the_loop_with_both_engines_after_an_unclean_death",
    ),
    PrivateName(
        "ray.train.v2._internal.exceptions",
        "UserExceptionWithTraceback._base_exc",
        "driver/wrapped_errors.py",
        "what a training worker raised, which may be ours",
        "unit/test_wrapped_errors.py::test_our_error_is_found_in_whatever_wraps_it",
    ),
    PrivateName(
        "deepspeed.runtime.engine",
        "DeepSpeedEngine._zero3_consolidated_16bit_state_dict",
        "training/student_folder.py",
        "gathers a ZeRO-3 model's weights on rank 0; the public method writes a file of its own form",
        "integration/test_training.py::test_two_workers_at_zero_3",
    ),
    PrivateName(
        "deepspeed.ops",
        "__compatible_ops__",
        "training/engine.py",
        "emptied, so that no shared-memory collective is compiled, which only inference uses",
        "unit/test_private_names.py::test_deepspeed_looks_at_its_operators_when_it_is_asked",
    ),
    PrivateName(
        "transformers.configuration_utils",
        "PreTrainedConfig._attn_implementation",
        "training/packed_attention.py",
        "which attention a model came with, to go back to where packed rows do not fit it",
        "integration/test_packing.py::test_a_model_that_cannot_be_packed_is_found_out_and_trained_padded",
    ),
)
