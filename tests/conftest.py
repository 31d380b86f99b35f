"""What all tests share: how hypothesis searches. Nothing here starts Ray; real data sets: unit/task_data.py."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: shared machines are slow in bursts. In CI the same examples each time: a failure there is one of the change.
settings.register_profile("here", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("ci" if os.environ.get("CI") else "here")
