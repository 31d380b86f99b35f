"""Runs inside vLLM's workers: after a reload, the output embedding of a tied model must follow the input embedding.

vLLM 0.29 on CPU packs the weights of a tied `lm_head` into a copy of its own when the model is first loaded. A reload fills the
input embedding anew and says "ParallelLMHead: Failed to load weights": the copy stays the old model's, silently. Seen with two
random models (other tokens than transformers'); after fine-tuning, where embeddings hardly move, nobody would notice.
"""

from __future__ import annotations

from typing import Any


class TiedHead:
    """Mixed into vLLM's worker class by the engine argument `worker_extension_cls`."""

    model_runner: Any

    def refresh_tied_head(self) -> int:
        """Returns the number of heads refreshed: 1 for a tied model, else 0."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

        model = self.model_runner.get_model()
        heads = [layer for layer in model.modules() if isinstance(layer, ParallelLMHead)]
        inputs = [layer for layer in model.modules() if type(layer) is VocabParallelEmbedding]
        if not self.model_runner.model_config.hf_config.tie_word_embeddings or not inputs:
            return 0
        for head in heads:
            head.tie_weights(inputs[0])
            head.quant_method.process_weights_after_loading(head)
        return len(heads)
