"""Ray Train runs DeepSpeed fine-tuning: one dataset version and one start model in, one student folder out.

`trainer.py` is the port. `workers.py` keeps the worker group of a run, `desk.py` hands it jobs, `place.py` frees what a dead one
held. `worker.py` is one rank: `engine.py` around DeepSpeed (`deepspeed_config.py`, `optimizer.py`), `update.py` one update over
`batching.py`'s rows (packed: `packed_attention.py`), `student_folder.py` what is left, with `beside_weights.py` of the base and
`completions.py`, what the model says of a few rows, by which an engine is known to hold it.
"""
