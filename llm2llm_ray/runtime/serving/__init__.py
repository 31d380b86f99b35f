"""The engines: student and teacher as Ray Serve applications of vLLM.

`engines.py` describes, starts, loads and scales them; `run_engines.py` is their life in one run; `server.py` is what a replica
runs; `cpu_engine.py` and `tied_head.py` are what vLLM needs on CPU.
"""
