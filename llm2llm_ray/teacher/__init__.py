"""Teachers that answer over HTTP or from a script, and what bounds them. The Serve teacher is in runtime/.

- `openai_client.py`: an OpenAI-compatible service; `openai_reply.py`: what its answers mean.
- `limits.py`: requests and tokens per minute of one client; `budget.py`: what a whole run may ask.
- `scripted.py`: replies from a file, for tests and for trying out a task of your own.

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
