"""Asking a model, without Ray: what a request is, who may be asked, and what bounds it. Served engines are in runtime/serving/.

- `request.py`: what is asked, as data; `answerer.py`: who answers and how, which the keys of replies and stages are made from;
  `no_answer.py`: why there is no answer; `scores.py`: requests that have a text weighed instead of written.
- `openai_service.py`: an OpenAI-compatible teacher, in parts: `openai_client.py` (key, certificates, proxies), `openai_reply.py`
  (what its answers mean), `openai_failure.py` (why there is none), `openai_remedy.py` (what to change), `redaction.py` (no keys).
- `rate_limit.py`: requests and tokens per minute of one client; `budget.py`: what a whole run may ask.
- `recorded.py`: a teacher's replies in a file, found by what was asked.
- `scripted.py`: a teacher and a student from a file, for tests and for trying out a task of your own.

Keeps: a request that failed is a `Reply` with an error, so one bad row never ends a run. Only a teacher that can serve
no row at all (bad key, no such model, unreachable at the start) is a `UserError`.
"""

from __future__ import annotations

from typing import Protocol

from llm2llm_ray.types import Prompt, Reply


class Teacher(Protocol):
    async def ask(self, prompt: Prompt, *, temperature: float, top_p: float, max_tokens: int, seed: int) -> Reply:
        """One reply to one prompt; `max_tokens` bounds the reply, `seed` makes a repeated request the same request."""
        ...
