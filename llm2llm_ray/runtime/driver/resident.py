"""What stays up while a study's runs come by one after the other: engines, training workers, asking processes.

Invariant: all runs of a session have the same engines, cluster and workers (study/plan.py checks that), so what one run started
serves the next. A run outside a study has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llm2llm_ray.runtime.serving.run_engines import RunEngines
from llm2llm_ray.runtime.training.workers import TrainingWorkers
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import StageRecords
from llm2llm_ray.storage.taken import SiblingStages


@dataclass(kw_only=True)
class Resident:
    around: Files
    """The folder that holds the folders of all runs."""
    engines: RunEngines
    workers: TrainingWorkers
    askers: dict[str, Any] = field(default_factory=dict)
    """By who is asked."""
    siblings: Sequence[str] = ()
    """Folders of the runs before this one, below `around`."""

    def stages(self, own: Files) -> StageRecords:
        """Of the run in `own`, which takes from its siblings what they have done already."""
        return SiblingStages(self.around, own.root.removeprefix(f"{self.around.root}/"), self.siblings)
