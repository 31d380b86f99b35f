"""Everything that imports ray, torch, DeepSpeed, vLLM, transformers or peft.

From below: `environment.py` (every variable we set), `priority.py`, `connection.py`, `series.py`; `models/` (folders, tokens),
then `training/`, `serving/` and `streaming/`, which do not know each other, and `driver/`, which joins them.
"""
