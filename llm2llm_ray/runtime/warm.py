"""Worker processes made ready while something else runs, so that the next stream does not wait for them.

Ray gives an idle worker process of the job to a new actor. Python, Ray Data, Serve and the tokenizer cost such a process
seconds of processor time before its first row; a task that only imports them leaves it idle and ready. Each stream uses up
its two, since a process ends with its actor.
"""

from __future__ import annotations

import ray

STREAM_ACTORS = 2
_TOGETHER_S = 1.0


def warm(count: int = STREAM_ACTORS) -> None:
    """Start `count` tasks that only import what `Ask` needs. Returns at once; nobody waits for them."""
    task = ray.remote(num_cpus=0.1, max_retries=0)(_import_what_ask_needs)
    for _ in range(count):
        task.remote()


def _import_what_ask_needs() -> None:
    import time

    import ray.data
    import transformers
    from ray import serve

    import llm2llm_ray.runtime.ask

    _ = (ray.data.DataContext, serve.get_app_handle, transformers.AutoTokenizer, llm2llm_ray.runtime.ask.Ask)
    time.sleep(_TOGETHER_S)  # so that the tasks of one call do not share one process
