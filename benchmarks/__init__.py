"""What is measured, and against what: a room for each thing measured, over `measuring`, which they share.

Each command is `python -m benchmarks.ROOM.NAME`, typed in the repository's root (README.md lists them). Invariant: a room
imports no other room but `measuring`; `llm2llm_ray` knows none of them.
"""
