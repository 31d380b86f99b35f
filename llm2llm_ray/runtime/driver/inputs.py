"""What a run is made from, checked and resolved by the entrypoint before any engine starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm2llm_ray.config import Config
from llm2llm_ray.runtime.serving.engines import native_dtype
from llm2llm_ray.tasks.task import Task
from llm2llm_ray.types import DatasetVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the entrypoint has checked and resolved before any engine starts; crosses to the driver actor.

    Invariant: the engines' `dtype` in `config` is the one that is computed in, found on the node where the run was started: a
    driver that is restarted on another node means the same engines, and the keys of its stages say so.
    """

    config: Config
    task: Task
    run_root: str
    student_model: str
    student_sha: str
    teacher_model: str
    """Folder of the model that is served, or path of the run's copy of the replies; else as the config names it."""
    teacher_sha: str
    """Of the weights that are served, or of a file's content; "" for a service, whose weights cannot be known."""
    replies_path: str = ""
    replies_sha: str = ""
    """A live teacher's own replies (`teacher.replies`), as a file of the run; "" without."""
    replies_told: Mapping[str, Any] = field(default_factory=dict)
    """What the file of recorded replies says of itself (`asking.recorded.About`); empty without one."""
    judge_model: str = ""
    judge_sha: str = ""
    """As the teacher's, of a model apart that votes; "" without one."""
    recorded_sha: str = ""
    """Of the content of `evaluation.recorded_answers`."""
    app: str = ""
    """What the names of the run's applications are made of, where that is not its own name: a session of several runs."""
    device: str
    seeds: DatasetVersion
    """D^0, committed."""
    folds: Mapping[str, int] = field(default_factory=dict)
    """Seed id -> fold, with cross-fitted errors (rounds/folds.py)."""
    dev: DatasetVersion | None
    test: DatasetVersion | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", _with_dtypes(self.config, native_dtype(self.device)))

    @property
    def app_of(self) -> str:
        return self.app or self.config.run.name


def _with_dtypes(config: Config, native: str) -> Config:
    """`auto` is another type on another machine."""

    def found(section: Any) -> Any:
        engine = section.engine
        dtype = native if engine.dtype == "auto" else engine.dtype
        return section.model_copy(update={"engine": engine.model_copy(update={"dtype": dtype})})

    judge = config.judge and found(config.judge)
    return config.model_copy(update={"student": found(config.student), "teacher": found(config.teacher), "judge": judge})
