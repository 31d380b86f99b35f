"""`augmentation`, `evaluation` and `run`: how the loop goes, what it judges by, and how often."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from llm2llm_ray.config.section import Section

NonNegative = Annotated[int, Field(ge=0)]


class AugmentationConfig(Section):
    per_wrong: int = Field(default=1, ge=1)
    """New examples wanted per wrong row and iteration (the paper: 1)."""
    per_call: int = Field(default=1, ge=1)
    """New examples asked for in one request; a wrong row takes as many requests as `per_wrong` needs. teacher.max_tokens is for
    the whole reply."""
    attempts: int = Field(default=3, ge=1)
    """Tries of one request, until a reply has an example that passes the stateless gates."""
    one_shot: bool = False
    """The paper's ablation: ask for all iterations' examples after the first student, then train once more."""
    augment_augmented: bool = False
    """The paper's ablation: augment errors on augmented rows too."""
    show_wrong_answer: bool = False
    """Let the teacher see what the student said. The paper does not; follow-up work found that it helps."""
    examples_of_confused: int = Field(default=2, ge=0)
    """With show_wrong_answer: real examples of the class that the wrong one was taken for, where the answer is a class."""
    examples_in_prompt: int = Field(default=5, ge=0)
    """Real examples of the same class shown beside the wrong one."""
    require_better_teacher: bool = False
    """Stop before the teacher is asked for rows when it is not better than the first student on the dev rows, of which there must
    be some; as `evaluation.check_teacher`, which this turns on."""
    targets: Literal["wrong", "weakest", "random", "all"] = "wrong"
    """Which rows the teacher is asked about. wrong: those that the student got wrong (the paper). weakest: `weakest_share` of all
    rows, by evaluation.judge_by. random: as many as were wrong, drawn from all rows, as a control for what targeting adds. all:
    every row that the student answered, right or wrong."""
    weakest_share: float = Field(default=0.5, gt=0, le=1)
    """Of the answered rows, with targets: weakest."""
    random_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows asked about that are drawn from all others, on top of the targets. More than 0, as any targets but wrong,
    makes the teacher wait until the student has answered every row."""
    rows_at_most: NonNegative | tuple[NonNegative, ...] | None = None
    """New rows that a round may bring, taken seed by seed in turn; what is over is turned away (row_cap). A list: those of each
    round, and none in further ones. For comparisons."""
    copies: bool = False
    """New rows may be copies of others, also of the row that they are for: for comparisons with rows that are meant as copies."""
    max_words: int = Field(default=200, ge=1)
    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    """Similarity from which a new row counts as a copy of a row of any version."""
    near_test: float = Field(default=0.8, gt=0, le=1)
    """Similarity from which a new row counts as contaminated by a dev or test row (docs/contamination.md): at 0.8 a text of 4 to
    9 words with one word changed, of 10 to 14 with two."""

    def of_round(self, iteration: int) -> AugmentationConfig:
        """With `rows_at_most` as one number, that of this round."""
        given = self.rows_at_most
        if not isinstance(given, tuple):
            return self
        return self.model_copy(update={"rows_at_most": given[iteration] if iteration < len(given) else 0})

    @model_validator(mode="after")
    def _others_to_draw_from(self) -> AugmentationConfig:
        if self.targets in ("random", "all") and self.random_share:
            raise ValueError(
                f"random_share adds random rows to others, and targets: {self.targets} has no others; set random_share to 0"
            )
        return self


class MaxUnanswered(Section):
    """Shares of rows, 0 to 1. With more of them than this without an answer a round or an exam does not count: the run stops, and
    the same command goes on with it. An unanswered row counts as not right."""

    passing: float = Field(default=0.0, ge=0, le=1)
    """Because nobody was reached, after all retries: a service that is away or overloaded."""
    refused: float = Field(default=0.05, ge=0, le=1)
    """Because this request was refused: too long, filtered, not understood."""


class EvaluationConfig(Section):
    error_source: Literal["seed", "dev", "early", "cross_fit"] = "seed"
    """Which rows errors come from: the seeds (the paper), the dev rows, the seeds as the student answered them at `early_at`,
    before it knew them by heart (Swayamdipta et al. 2020, arXiv 2009.10795): no training is added; or (cross_fit) the seeds, each
    answered by a student that was trained without it and all rows that come of it: `folds` more trainings in every iteration."""
    folds: int = Field(default=4, ge=2)
    """With cross_fit: parts of the seeds, and students that are each trained without one. A teacher's prompt then shows rows of
    the part alone that the row asked about is in, so a part should have several seeds of each class."""
    early_at: float = Field(default=0.1, gt=0, lt=1)
    """Share of a student's updates after which `early` keeps it as it then is."""
    max_tokens: int = Field(default=256, ge=1)
    """Tokens of a student's answer; longer ones are cut, counted as truncated, and graded as they stand."""
    judge_by: Literal["greedy", "pass_rate", "gold_loss"] = "greedy"
    """How a round finds what the student is weak at (exams are always greedy). greedy: one answer, right or wrong. pass_rate: the
    share of `samples` sampled answers that are right; a row below `weak_below` is wrong. gold_loss: the greedy answer says right
    or wrong, the mean loss of the gold answer's tokens ranks the rows (augmentation.targets: weakest)."""
    samples: int = Field(default=8, ge=2)
    """Answers for each row with judge_by: pass_rate."""
    sample_temperature: float = Field(default=0.7, gt=0, le=2)
    weak_below: float = Field(default=0.5, gt=0, le=1)
    """Share of right answers below which a row counts as wrong, with judge_by: pass_rate."""
    structured: bool = False
    """Hold the student's answers to the task's choices (its labels), where these are a closed set: in rounds and exams, and in
    the exam of a teacher that is served here. The same for every student of a run."""
    in_flight: int | None = Field(default=None, ge=1)
    """Student requests open at once; None: 256 on GPU; on CPU an eighth of the rows, 8 to 32.

    Fewer than rows: otherwise the teacher starts when all is over."""
    rows_per_block: int = Field(default=4, ge=1)
    """Rows per Ray Data block, at least: large blocks destroy the overlap of student and teacher. Larger sets take a 1024th of
    their rows, at most 64."""
    max_unanswered: MaxUnanswered = MaxUnanswered()
    """How many rows may stay without an answer: the student's, in rounds and exams, and the teacher's."""
    test: bool = True
    """Read the test set once at the end: first, last and untrained student, matched baseline."""
    check_teacher: bool = False
    """Before it is asked for rows, let the teacher answer the dev rows itself, and say so when it is not better than the student.
    Without dev rows nothing is known, and the plan says that."""
    teacher_on_test: bool = False
    """Score the teacher itself on the test set too (costs its tokens)."""
    matched_baseline: bool = True
    """Train on the seeds alone for as many updates as the kept student took in all (with `student.start_from: previous` those of
    every training)."""
    engine: Literal["resident", "per_stage"] = "resident"
    recorded_answers: str | None = None
    """Take the student's answers from this JSONL file instead of an engine: for tests of the loop and of a task."""

    @property
    def student_held(self) -> bool:
        """Whether the student's requests carry choices: recorded answers are what they are."""
        return self.structured and self.recorded_answers is None

    @property
    def error_split(self) -> Literal["seed", "dev"]:
        """Where the rows stand that errors come from."""
        return "dev" if self.error_source == "dev" else "seed"

    @property
    def snapshot_at(self) -> float | None:
        """Share of its updates after which each student is kept as it then is; None: no student is."""
        return self.early_at if self.error_source == "early" else None

    @model_validator(mode="after")
    def _has_probabilities(self) -> EvaluationConfig:
        if self.judge_by == "gold_loss" and self.recorded_answers is not None:
            raise ValueError(
                "judge_by: gold_loss asks an engine how likely it finds the gold answer, and recorded_answers have no engine; "
                "use judge_by: greedy or pass_rate, or remove recorded_answers"
            )
        return self

    @field_validator("engine")
    @classmethod
    def _resident(cls, value: str) -> str:
        if value == "per_stage":
            raise ValueError("per_stage is not built yet; use resident")
        return value


class RunConfig(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    folder: str = "runs"
    """Where runs are kept: a path every node sees, or a URI that pyarrow opens."""
    iterations: int = Field(default=3, ge=1)
    """Students trained: M^0 ... M^{n-1}; examples are generated after each but the last."""
    patience: int | None = Field(default=None, ge=1)
    """Students in a row without a gain on the dev rows after which nothing more is asked for. None: all iterations are run."""
    keep: Literal["last", "best"] = "last"
    """Which student a run ends with: the last one, or the best on the dev rows (of equals the latest);
    never chosen on the test set."""
    seed: int = 0
    tensorboard: bool = False
    """Write curves to <run>/tensorboard as the run goes."""

    @model_validator(mode="after")
    def _board_is_local(self) -> RunConfig:
        if self.tensorboard and "://" in self.folder:
            raise ValueError("run.tensorboard writes to a local folder, but run.folder is a URI; turn one of them off")
        return self
