"""Everything that a user can set: `settings.py` is the tree, a file per section, `file.py` reads YAML and `--set`.

`profiles.py` are defaults for the places people have; `schedule.py` is the arithmetic that a run and its plan share.
"""

from llm2llm_ray.config.cluster import ClusterConfig, Pool
from llm2llm_ray.config.engine import EngineConfig
from llm2llm_ray.config.gates import CapsConfig, GatesConfig, RelabelConfig
from llm2llm_ray.config.loop import AugmentationConfig, EvaluationConfig, MaxUnanswered, RunConfig
from llm2llm_ray.config.settings import Config
from llm2llm_ray.config.student import LoraSettings, StudentConfig
from llm2llm_ray.config.task import TaskConfig
from llm2llm_ray.config.teacher import BudgetConfig, TeacherConfig

__all__ = [
    "AugmentationConfig", "BudgetConfig", "CapsConfig", "ClusterConfig", "Config", "EngineConfig", "EvaluationConfig",
    "GatesConfig", "LoraSettings", "MaxUnanswered", "Pool", "RelabelConfig", "RunConfig", "StudentConfig", "TaskConfig",
    "TeacherConfig",
]  # fmt: skip
