"""The configuration of a run: one frozen tree, one YAML file, no other settings anywhere.

Parses with none of ray, torch or vllm installed. Class defaults are the vetted settings; each field says its unit. Which
fields change a *result* (and so a stage's key) is said by the component that owns the stage, not here.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from llm2llm_ray.config.cluster import ClusterConfig
from llm2llm_ray.config.gates import GatesConfig
from llm2llm_ray.config.loop import AugmentationConfig, EvaluationConfig, RunConfig
from llm2llm_ray.config.profiles import PROFILES, below
from llm2llm_ray.config.recipes import DEFAULT, Name, recipe_defaults
from llm2llm_ray.config.section import Section
from llm2llm_ray.config.student import StudentConfig
from llm2llm_ray.config.task import TaskConfig
from llm2llm_ray.config.teacher import TeacherConfig


class Config(Section):
    recipe: Name = DEFAULT
    """Defaults under everything that is not said here: `steady` is what was measured to help, `paper` repeats the paper."""
    task: TaskConfig
    student: StudentConfig
    teacher: TeacherConfig
    judge: TeacherConfig | None = None
    """Who votes on new rows (`gates.relabel`); None: the teacher. Its `temperature` is that of `gates.relabel`."""
    augmentation: AugmentationConfig = AugmentationConfig()
    gates: GatesConfig = GatesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: RunConfig

    @model_validator(mode="before")
    @classmethod
    def _under(cls, given: Any) -> Any:
        """A profile's fields under what is given, the recipe's under both."""
        if not isinstance(given, dict):
            return given
        cluster = given.get("cluster")
        profile = cluster.get("profile") if isinstance(cluster, dict) else None
        if isinstance(profile, str) and profile in PROFILES:
            given = below(given, PROFILES[profile])
        recipe = recipe_defaults(given.get("recipe", DEFAULT), given)
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return below(given, {name: section for name, section in recipe.items() if name in given or name not in required})

    @model_validator(mode="after")
    def _built(self) -> Config:
        if self.judge and (self.judge.kind == "recorded" or self.judge.replies):
            raise ValueError(
                "judge: recorded replies are not built for a judge; use kind serve, openai or scripted, or leave judge out, as a "
                "teacher's recorded replies may have its votes"
            )
        self._rows_are_no_model()
        return self

    def _rows_are_no_model(self) -> None:
        if self.judge and self.judge.kind == "rows":
            raise ValueError("judge.kind: rows is a file of rows, which cannot vote; use serve, openai or scripted")
        if self.teacher.kind != "rows":
            return
        asked = {
            "evaluation.teacher_on_test": self.evaluation.teacher_on_test,
            "evaluation.check_teacher": self.evaluation.check_teacher,
            "augmentation.require_better_teacher": self.augmentation.require_better_teacher,
            "gates.relabel.votes": self.gates.relabel.votes and not self.judge,
        }
        if wanted := [field for field, is_on in asked.items() if is_on]:
            raise ValueError(f"teacher.kind: rows is a file of rows, which answers nothing; turn off {', '.join(wanted)}")

    @property
    def judge_apart(self) -> TeacherConfig | None:
        """Who votes, where votes are asked for and it is not the teacher."""
        return self.judge if self.gates.relabel.votes else None

    @property
    def voter(self) -> TeacherConfig:
        """Who is asked for votes."""
        return self.judge or self.teacher

    @property
    def checks_teacher(self) -> bool:
        """Whether the teacher answers the dev rows before it is asked for rows, where there are any."""
        return self.evaluation.check_teacher or self.augmentation.require_better_teacher

    @property
    def examines_teacher(self) -> bool:
        """Whether the teacher answers rows itself, be they dev or test rows."""
        return self.checks_teacher or (self.evaluation.test and self.evaluation.teacher_on_test)

    @property
    def run_path(self) -> str:
        return f"{self.run.folder.rstrip('/')}/{self.run.name}"
