"""The model that comes in parts, as the teacher of jobs/demo_live.yaml: by vLLM and Serve it answers the task's own prompts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm2llm_ray.asking.request import Request
from llm2llm_ray.config import Config
from llm2llm_ray.config.file import load_config
from llm2llm_ray.preflight import check
from llm2llm_ray.runtime.models.folders import model_sha, resolve_model
from llm2llm_ray.runtime.serving.engines import EngineSpec, app_name, start_engines, stop_engines
from llm2llm_ray.runtime.streaming.transports import EngineRoute, EngineTransport
from llm2llm_ray.tasks.task import Asked
from llm2llm_ray.types import Draft, Graded, Reply

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]
JOB = Path(__file__).parents[2] / "jobs" / "demo_live.yaml"
RUN = "live-teacher"


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(JOB)


@pytest.fixture(scope="module")
def teacher(ray_cluster: str, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineTransport]:
    folder = resolve_model(config.teacher.model, print)
    sha, app = model_sha(folder), app_name(RUN, "teacher")
    spec = EngineSpec(role="teacher", app=app, model=folder, sha=sha, engine=config.teacher.engine)
    start_engines([spec], config.cluster, device="cpu", run_folder=str(tmp_path_factory.mktemp("run")))
    length = config.teacher.engine.max_model_len
    yield EngineTransport(EngineRoute(app=app, tokenizer=folder, max_model_len=length, model="teacher", weights=(folder, sha)))
    stop_engines(RUN)


def test_it_answers_the_tasks_own_prompts_with_examples(teacher: EngineTransport, config: Config) -> None:
    """Of three wrong rows of three labels; every reply is told with -s."""
    checked = check(config, JOB.parent)
    task, seeds = checked.task, checked.splits.seed
    wrong = [next(row for row in seeds if row.output == label) for label in ("billing", "login", "feature")]
    asked = []
    for row in wrong:
        mistake = Graded(example=row, completion=" bug", answer="bug", correct=False)
        peers = [peer for peer in seeds if peer.output == row.output]
        how = Asked(style=config.teacher.style, count=config.augmentation.per_call, peers=peers)
        asked.append((mistake, task.teacher_prompt(mistake, how)))
    sampling = {"temperature": config.teacher.temperature, "top_p": config.teacher.top_p, "max_tokens": config.teacher.max_tokens}

    async def all_of_them() -> list[Reply]:
        requests = [
            Request(row_id=mistake.example.id, prompt=prompt, sampling=sampling | {"seed": number})
            for number, (mistake, prompt) in enumerate(asked)
        ]
        return await asyncio.gather(*[teacher.ask(request) for request in requests])

    began = time.monotonic()
    replies = asyncio.run(all_of_them())
    print(f"\n{time.monotonic() - began:.1f} s")
    drafts = []
    for (mistake, _), reply in zip(asked, replies, strict=True):
        print(mistake.example.output, "|", mistake.example.input, "|", reply)
        assert reply.error == "" and reply.text
        drafts += task.parse(reply.text, mistake, style=config.teacher.style, count=config.augmentation.per_call, cut=False)
    print(*drafts, sep="\n")
    assert [draft for draft in drafts if isinstance(draft, Draft)], "not one reply that the task can read"
