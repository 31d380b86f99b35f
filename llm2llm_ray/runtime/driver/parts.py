"""Builds the parts of a run from its config: which model answers where, with which role, from which rows.

The composition root's parts list: the only place that knows both what the loop asks for and what runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llm2llm_ray.asking import answerer
from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.config import AugmentationConfig, Config, TeacherConfig
from llm2llm_ray.config.schedule import asking
from llm2llm_ray.rounds.aiming import aiming
from llm2llm_ray.rounds.augmenting import ASKED, lineage_teacher
from llm2llm_ray.rounds.blind_exam import blind_exam, shown_blind
from llm2llm_ray.rounds.judging import JUDGED, Judge
from llm2llm_ray.rounds.round_inputs import judged, solved, solved_by_teacher, taught, teacher_held
from llm2llm_ray.rounds.solving import SOLVED
from llm2llm_ray.rounds.weakness import student_role
from llm2llm_ray.runtime.driver.in_flight import asked_in_flight, enough, student_in_flight
from llm2llm_ray.runtime.driver.inputs import Inputs
from llm2llm_ray.runtime.driver.writing_role import writer
from llm2llm_ray.runtime.serving.engines import EngineSpec, app_name, in_flight_of, load_weights
from llm2llm_ray.runtime.streaming.asker import open_asker
from llm2llm_ray.runtime.streaming.stream_role import RecordedSource, RoleSpec, Voice
from llm2llm_ray.runtime.streaming.streams import RayAugmenter, RayGraded
from llm2llm_ray.runtime.streaming.transports import EngineRoute, NoRoute, RecordedRoute, RepliesRoute, Route, ServiceRoute
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events
from llm2llm_ray.types import DatasetVersion, Example, Student


@dataclass(kw_only=True)
class Parts:
    inputs: Inputs
    files: Files
    progress: Any
    """Handle of the driver actor, for row counts."""
    ready: Callable[[], None] = lambda: None
    """Returns when the engines answer; called before a stream is made, so that waiting is no part of a stage."""
    make_asker: Callable[..., Any] = open_asker
    askers: dict[str, Any] = field(default_factory=dict)
    """Those that are there already, by who is asked; new ones are added."""
    student_asker: Any = field(init=False)
    teacher_asker: Any = field(init=False)
    judge_asker: Any = field(init=False)
    """The teacher's where it votes itself: what it may be asked is one number."""

    def __post_init__(self) -> None:
        self.student_asker = self._asker("student", served=self.config.evaluation.recorded_answers is None)
        self.teacher_asker = self._asker_of("teacher", self.config.teacher)
        apart = self.config.judge_apart
        self.judge_asker = self._asker_of("judge", apart) if apart else self.teacher_asker

    def _asker_of(self, role: str, asked: TeacherConfig) -> Any:
        return self._asker(role, served=asked.served, tokenizes=asked.kind == "serve")

    def _asker(self, role: str, **how: bool) -> Any:
        name = f"{role} {sorted(how.items())}"
        if name not in self.askers:
            self.askers[name] = self.make_asker(**how)
        return self.askers[name]

    @property
    def config(self) -> Config:
        return self.inputs.config

    def engine_specs(self) -> list[EngineSpec]:
        """The applications this run needs: none for a recorded student or a teacher that is not ours to serve."""
        found, config = [], self.config
        if config.evaluation.recorded_answers is None:
            found.append(self._spec("student", self.inputs.student_model, self.inputs.student_sha, config.student.engine))
        teacher = config.teacher
        if teacher.served:
            spec = self._spec("teacher", self.inputs.teacher_model, self.inputs.teacher_sha, teacher.engine)
            recorded = teacher.kind == "recorded"
            found.append(replace(spec, replies=teacher.model, latency_s=teacher.latency_s) if recorded else spec)
        if config.judge_apart and config.judge_apart.served:
            found.append(self._spec("judge", self.inputs.judge_model, self.inputs.judge_sha, config.judge_apart.engine))
        return found

    def _spec(self, role: Literal["student", "teacher", "judge"], model: str, sha: str, engine: Any) -> EngineSpec:
        return EngineSpec(role=role, app=app_name(self.inputs.app_of, role), model=model, sha=sha, engine=engine)

    def graded(self, student: Student, rows: DatasetVersion, *, in_round: bool = False) -> RayGraded:
        """`student` on these rows through the resident engine: greedily, and in rounds as `evaluation.judge_by` says."""
        self.ready()
        config, iteration, voice = self.config, student.iteration, self.voice(student)
        solve = RoleSpec(
            name="student",
            role=student_role(config, self.inputs.task, in_round=in_round),
            adds=SOLVED,
            route=voice.route,
            answerer=voice.answerer,
            replies=voice.replies,
            run_root=self.inputs.run_root,
            in_flight=student_in_flight(config, self.inputs.device, rows.num_rows),
            progress=self.progress,
            asker=self.student_asker,
        )
        named: dict[str, Any] = {"student": student.sha, "rows": rows.id, "iteration": iteration, "in_round": in_round}
        inputs = solved(config, self.inputs.task, voice.answerer, **named)
        engine = config.student.engine
        alone = config.evaluation.in_flight or max(
            enough(self.inputs.device, engine), engine.replicas * in_flight_of(engine.max_num_seqs)
        )
        return self._stream(rows, solve, iteration, inputs, lambda: self._load(student), alone, self.weights_of(student))

    def voice(self, student: Student) -> Voice:
        """Who answers where `student` is asked."""
        return Voice(
            route=self._student_route(student), answerer=self._student_answering(student),
            replies=f"replies/student-{student.sha[:12]}",
        )  # fmt: skip

    def weights_of(self, student: Student) -> tuple[str, ...]:
        """What an engine has to load for it."""
        return () if self.config.evaluation.recorded_answers else (student.path,)

    def teacher_exam(self, rows: DatasetVersion, seeds: Iterable[Example]) -> RayGraded:
        """The teacher itself on these rows, asked as a judge is: an upper bound people ask for, and what its votes are worth."""
        self.ready()
        config, seeds = self.config, list(seeds)
        solve = RoleSpec(
            name="teacher",
            role=blind_exam(config, self.inputs.task, seeds, structured=teacher_held(config)),
            adds=SOLVED,
            run_root=self.inputs.run_root,
            replies="replies/teacher-exam",
            **self._asked_of_teacher(),
        )
        inputs = solved_by_teacher(
            config, self.inputs.task, self._teacher_answering(), rows=rows.id,
            examples=shown_blind(self.inputs.task, seeds, config.gates.relabel.examples), replies=self.inputs.replies_sha,
        )  # fmt: skip
        return self._stream(rows, solve, 0, inputs, lambda: None, self._in_flight(self.config.teacher))

    def augmenter(self, seeds: Iterable[Example], seeds_id: str) -> RayAugmenter:
        config, settings = self.config, self.settings()
        seeds = list(seeds)
        role = writer(self.inputs, settings, seeds)

        def teacher(iteration: int) -> tuple[RoleSpec, Mapping[str, Any]]:
            spec = RoleSpec(
                name="teacher",
                role=role(iteration),
                adds=ASKED,
                run_root=self.inputs.run_root,
                replies=_teacher_replies(iteration),
                **self._asked_of_teacher(),
            )
            return spec, taught(config, settings, self._teacher_answering(), peers=seeds_id, replies=self.inputs.replies_sha)

        judge = self._judge(seeds) if config.gates.relabel.votes else None
        return RayAugmenter(teacher=teacher, judge=judge, choose=aiming(self.files, self.inputs.task, config))

    def _judge(self, seeds: Iterable[Example]) -> tuple[RoleSpec, Mapping[str, Any]]:
        """Who votes on new rows: the teacher itself, by its own asker and budget, or a model apart."""
        config, relabel = self.config, self.config.gates.relabel
        examples = shown_blind(self.inputs.task, seeds, relabel.examples)
        asked = self._asked_of_judge(config.judge_apart) if config.judge_apart else self._asked_of_teacher()
        spec = RoleSpec(
            name="judge",
            role=Judge(self.inputs.task, examples, settings=relabel, asked=config.voter, run_seed=config.run.seed),
            adds=JUDGED,
            run_root=self.inputs.run_root,
            replies=_VOTES,
            **asked,
        )
        return spec, judged(config, asked["answerer"], examples)

    def _paid_for(self) -> tuple[str, ...]:
        votes = () if self.config.judge_apart else (_VOTES,)
        return ("replies/teacher-exam", *(_teacher_replies(i) for i in range(self.config.run.iterations)), *votes)

    def _in_flight(self, asked: TeacherConfig) -> int:
        return asked_in_flight(asked, self.inputs.device)

    def settings(self) -> AugmentationConfig:
        """As the teacher's role goes by them."""
        return asking(self.config)

    def _stream(
        self,
        rows: DatasetVersion,
        solve: RoleSpec,
        iteration: int,
        inputs: Mapping[str, Any],
        prepare: Any,
        in_flight_alone: int,
        weights: tuple[str, ...] = (),
    ) -> RayGraded:
        return RayGraded(
            files=self.files, rows=rows, solve=solve, iteration=iteration, inputs=inputs, prepare=prepare,
            rows_per_block=self.config.evaluation.rows_per_block,
            in_flight_alone=in_flight_alone, weights=weights,
        )  # fmt: skip

    def _student_answering(self, student: Student) -> Answerer:
        if self.config.evaluation.recorded_answers is not None:
            return answerer.recording(self.inputs.recorded_sha, student.iteration)
        return answerer.engine(student.sha, self.config.student.engine)

    def _teacher_answering(self) -> Answerer:
        return answerer.teacher(self.config.teacher, self.inputs.teacher_sha)

    def _student_route(self, student: Student) -> Route:
        config = self.config
        if config.evaluation.recorded_answers is not None:
            return RecordedRoute(
                path=config.evaluation.recorded_answers, sha=self.inputs.recorded_sha, generation=student.iteration
            )
        return EngineRoute(
            app=app_name(self.inputs.app_of, "student"), tokenizer=student.path, model=config.student.model,
            max_model_len=config.student.engine.max_model_len, weights=(student.path, student.sha),
        )  # fmt: skip

    def _teacher_route(self) -> Route:
        config = self.config
        if config.teacher.kind == "recorded":
            return RepliesRoute(
                app=app_name(self.inputs.app_of, "teacher"), weights=(self.inputs.teacher_model, self.inputs.teacher_sha)
            )
        if config.teacher.kind == "rows":
            return NoRoute()
        if config.teacher.kind != "serve":
            log = self.files.absolute("teacher_calls.jsonl")
            return ServiceRoute(teacher=config.teacher, sha=self.inputs.teacher_sha, log=log)
        return EngineRoute(
            app=app_name(self.inputs.app_of, "teacher"), tokenizer=self.inputs.teacher_model, model=config.teacher.model,
            max_model_len=config.teacher.engine.max_model_len, weights=(self.inputs.teacher_model, self.inputs.teacher_sha),
        )  # fmt: skip

    def _asked_of_teacher(self) -> dict[str, Any]:
        """What the teacher's roles have in common: who answers, where, and what was said before."""
        teacher, inputs = self.config.teacher, self.inputs
        said = RecordedSource(
            path=inputs.replies_path, file=teacher.replies or "", model=teacher.model, weights_sha=inputs.teacher_sha
        )
        return {
            "route": self._teacher_route(),
            "answerer": self._teacher_answering(),
            "in_flight": self._in_flight(self.config.teacher),
            "budget": teacher.budget,
            "budget_replies": self._paid_for(),
            "progress": self.progress,
            "asker": self.teacher_asker,
            "asked_of": "" if teacher.kind == "recorded" else lineage_teacher(teacher, ""),
            "recorded": said if teacher.replies else None,
        }

    def _asked_of_judge(self, judge: TeacherConfig) -> dict[str, Any]:
        """As `_asked_of_teacher`, of a model apart."""
        model, sha = self.inputs.judge_model, self.inputs.judge_sha
        route: Route = ServiceRoute(teacher=judge, sha=sha, log=self.files.absolute("judge_calls.jsonl"))
        if judge.served:
            route = EngineRoute(
                app=app_name(self.inputs.app_of, "judge"), tokenizer=model, model=judge.model,
                max_model_len=judge.engine.max_model_len, weights=(model, sha),
            )  # fmt: skip
        return {
            "route": route,
            "answerer": answerer.teacher(judge, sha),
            "in_flight": self._in_flight(judge),
            "budget": judge.budget,
            "budget_replies": (_VOTES,),
            "progress": self.progress,
            "asker": self.judge_asker,
            "asked_of": lineage_teacher(judge, ""),
        }

    def _load(self, student: Student) -> None:
        if self.config.evaluation.recorded_answers is None:
            replicas = load_weights(app_name(self.inputs.app_of, "student"), student.path, student.sha)
            Events(self.files).add("weights_loaded", iteration=student.iteration, sha=student.sha, replicas=replicas)


_VOTES = "replies/judge-votes"
"""Of all iterations: the same text is voted on once."""


def _teacher_replies(iteration: int) -> str:
    return f"replies/teacher-{iteration:03d}"
