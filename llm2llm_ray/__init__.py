"""LLM2LLM (Lee et al., ACL Findings 2024) on Ray. Start at `algorithm.py`; `runtime/` is all that knows Ray, torch and vLLM."""
