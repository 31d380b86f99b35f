"""The engines: student and teacher as Ray Serve applications of vLLM, or of recorded replies in a teacher's place.

`engines.py` describes, starts, loads and scales them; `run_engines.py` is their life in one run; `server.py` is what a replica
runs, `replies_server.py` what one without a model does; `cpu_engine.py` and `tied_head.py` are what vLLM needs on CPU.
"""
