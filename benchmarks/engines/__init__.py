"""The path that a run's requests take, against bare vLLM: `evaluation` and `teacher` are the commands."""
