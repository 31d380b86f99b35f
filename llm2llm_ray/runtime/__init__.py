"""Everything that imports ray, torch, DeepSpeed, vLLM, transformers or peft.

`driver` joins the parts; adapters do not know each other.
"""
