"""vLLM behind Ray Serve, for real: replies carry the weights' sha, reloads change answers, bad requests are answers too."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from labels import rows as rows_to_learn
from ray.exceptions import RayTaskError
from test_training import Run
from tiny import make_tiny_model

from llm2llm_ray.asking.answerer import Answerer
from llm2llm_ray.asking.request import Request
from llm2llm_ray.asking.scores import score_request, scores_of
from llm2llm_ray.config import ClusterConfig, EngineConfig
from llm2llm_ray.rounds.rows import round_rows
from llm2llm_ray.rounds.solving import SOLVED, Solve
from llm2llm_ray.runtime.models import hand_off
from llm2llm_ray.runtime.models.folders import model_sha
from llm2llm_ray.runtime.models.hand_off import Told
from llm2llm_ray.runtime.models.tokens import encode, encode_prompt, encode_rows
from llm2llm_ray.runtime.serving.engines import EngineSpec, app_name, engine_handle, load_weights, start_engines, stop_engines
from llm2llm_ray.runtime.streaming.asker import open_asker
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec
from llm2llm_ray.runtime.streaming.streams import RayGraded
from llm2llm_ray.runtime.streaming.transports import EngineRoute, EngineTransport
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.storage.versions import VersionStore
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example, Message, Prompt

pytestmark = pytest.mark.integration
RUN = "engine-tests"
PROMPTS = ["Question: Where is my parcel?\nAnswer:", "Question: Can I have an invoice?\nAnswer:"]
GREEDY = {"temperature": 0.0, "max_tokens": 12}


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_tiny_model(tmp_path_factory.mktemp("other"), seed=1)
    leave_told(folder)
    return folder


@pytest.fixture(scope="module")
def engines(ray_cluster: str, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Student and teacher, brought up side by side; the student's application name."""
    engine = EngineConfig(max_model_len=256, max_num_seqs=8, dtype="float32", kv_cache_gib=0.1)
    # No test but one gives the teacher other weights: its head would stay that of the first.
    stale = engine.model_copy(update={"engine_kwargs": {"worker_extension_cls": "stale_head.StaleHead"}})
    specs = [
        EngineSpec(role=role, app=app_name(RUN, role), model=tiny_model, sha=model_sha(tiny_model), engine=settings)
        for role, settings in (("student", engine), ("teacher", stale))
    ]
    start_engines(specs, ClusterConfig(threads=1), device="cpu", run_folder=str(tmp_path_factory.mktemp("run")))
    yield app_name(RUN, "student")
    assert sorted(stop_engines(RUN)) == [spec.app for spec in specs]


def transport(app: str, model: str) -> EngineTransport:
    weights = (model, model_sha(model))
    return EngineTransport(EngineRoute(app=app, tokenizer=model, max_model_len=256, model="tiny", weights=weights))


def ask(app: str, model: str, prompts: list[str]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        client = transport(app, model)
        requests = [Request(row_id=str(i), prompt=Prompt(text=text), sampling=GREEDY) for i, text in enumerate(prompts)]
        return await asyncio.gather(*[client.ask(request) for request in requests])

    return asyncio.run(all_of_them())


def greedy_tokens(app: str, model: str) -> list[list[int]]:
    """What the engine says to PROMPTS with the weights of `model`, as ids: random models write broken characters."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    async def all_of_them() -> list[dict[str, Any]]:
        handle, weights = engine_handle(app), (model, model_sha(model))
        calls = [handle.ask.remote(encode_prompt(tokenizer, text), GREEDY, uuid.uuid4().hex, weights) for text in PROMPTS]
        return await asyncio.gather(*calls)

    answers = asyncio.run(all_of_them())
    assert {answer["weights_sha"] for answer in answers} == {model_sha(model)}
    return [answer["token_ids"] for answer in answers]


def leave_told(folder: str) -> None:
    """What a trainer of these weights would leave in their folder, computed by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows, _ = encode_rows(tokenizer, [(prompt, f" {answer}") for prompt in PROMPTS for answer in ("billing", "shipping")], 128)
    said = []
    for row in rows:
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        said.append(tuple(float(scores[at - 1, row.ids[at]]) for at in range(row.n_prompt, len(row.ids))))
    told = Told(rows=tuple(rows), log_probs=tuple(said), dtype="float32")
    Path(folder, hand_off.FILE).write_bytes(told.written())


def greedy_tokens_in_transformers(model: str) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    student = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([encode_prompt(tokenizer, prompt)])
        made = student.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=GREEDY["max_tokens"], do_sample=False)
        found.append(made[0, ids.shape[1] :].tolist())
    return found


async def identity(app: str) -> Any:
    return await engine_handle(app).identity.remote()


def test_after_each_reload_replies_carry_the_sha_and_agree_with_transformers(
    engines: str, tiny_model: str, other_model: str
) -> None:
    for model in (tiny_model, other_model, tiny_model):
        loaded = load_weights(engines, model, model_sha(model))
        assert [replica["weights_sha"] for replica in loaded] == [model_sha(model)]
        assert [reply.weights_sha for reply in ask(engines, model, PROMPTS)] == [model_sha(model)] * len(PROMPTS)
        assert greedy_tokens(engines, model) == greedy_tokens_in_transformers(model)


def test_a_replica_with_other_weights_loads_the_ones_a_request_means(engines: str, tiny_model: str, other_model: str) -> None:
    load_weights(engines, tiny_model, model_sha(tiny_model))
    (reply,) = ask(engines, other_model, PROMPTS[:1])  # nobody told the replica
    assert reply.weights_sha == model_sha(other_model)
    assert greedy_tokens(engines, other_model) == greedy_tokens_in_transformers(other_model)


def test_a_load_is_proved_by_what_the_engine_says(engines: str, tiny_model: str, other_model: str) -> None:
    for model in (tiny_model, other_model, tiny_model):
        load_weights(engines, model, model_sha(model))
    proofs = asyncio.run(identity(engines))["hand_offs"]
    assert [proof["weights_sha"] for proof in proofs[-2:]] == [model_sha(other_model), model_sha(tiny_model)]
    assert [proof["with"] for proof in proofs[-2:]] == ["the trainer", "itself before it had others"]
    told = hand_off.read(other_model)
    assert told is not None
    for proof in proofs[-2:]:
        assert proof["tokens"] == sum(row.n_completion for row in told.rows)
        assert proof["mean_difference"] <= proof["allowed"] == hand_off.MOST["float32"]
    print("hand-offs:", proofs)


def refused(app: str, folder: str, sha: str) -> str:
    with pytest.raises(RayTaskError) as error:
        load_weights(app, folder, sha)
    return str(error.value)


def test_a_head_that_stays_the_old_one_is_found_out(engines: str, tiny_model: str, other_model: str) -> None:
    teacher = app_name(RUN, "teacher")
    assert "the engine does not compute with the weights" in refused(teacher, other_model, model_sha(other_model))
    assert asyncio.run(identity(teacher))["weights_sha"] == ""  # nobody may take what is there for either
    (reply,) = ask(teacher, tiny_model, PROMPTS[:1])
    assert reply.weights_sha == model_sha(tiny_model)
    assert greedy_tokens(teacher, tiny_model) == greedy_tokens_in_transformers(tiny_model)


def test_the_model_runs_in_the_engines_own_process(engines: str) -> None:
    """Otherwise Ray's hook by which `CpuEngine` is named is gone, and each engine is a process and 20 seconds slower again."""
    replica = psutil.Process(asyncio.run(identity(engines))["pid"])
    titles = [" ".join(child.cmdline()) for child in replica.children(recursive=True)]
    assert [title.strip() for title in titles if "VLLM::" in title] == ["VLLM::EngineCore"]


def test_an_over_long_row_is_an_answer_not_a_failure(engines: str, tiny_model: str) -> None:
    short, long = ask(engines, tiny_model, [PROMPTS[0], PROMPTS[0] * 40])
    assert short.error == "" and short.completion_tokens > 0
    assert long.error.startswith("prompt_too_long") and long.finish_reason == "error"


def test_an_answer_is_exactly_one_of_the_choices_and_ends_behind_it(engines: str, tiny_model: str) -> None:
    """A random model says anything; one choice begins another; quotes and backslashes mean something to a grammar."""
    choices = [" billing", " bill", ' a "quoted\\one"', " crédit", " a|b"]

    async def all_of_them(sampling: dict[str, Any], rows: int) -> list[Any]:
        client = transport(engines, tiny_model)
        asked = [
            Request(
                row_id=str(n), prompt=Prompt(text=f"{n} {PROMPTS[n % 2]}"), sampling=sampling | {"seed": n, "choice": choices}
            )
            for n in range(rows)
        ]
        return await asyncio.gather(*map(client.ask, asked))

    replies = asyncio.run(all_of_them({"temperature": 1.0, "max_tokens": 60}, 40))
    print(sorted(reply.text for reply in replies))
    assert {(reply.error, reply.finish_reason) for reply in replies} == {("", "stop")}
    assert {reply.text for reply in replies} <= set(choices) and len({reply.text for reply in replies}) > 1
    free = ask(engines, tiny_model, PROMPTS)
    assert all(reply.text not in choices for reply in free), "the request that follows is not held to them"


def test_scores_are_those_of_transformers_whatever_the_prefix_cache_holds(engines: str, tiny_model: str) -> None:
    """Asked twice: the second time blocks of the completions themselves are cached, of which vLLM has no log-probabilities."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(tiny_model),
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
    )
    prompt, completions = PROMPTS[0] * 8, [" billing", " shipping", " billing" * 30, " billing" * 30 + " login"]

    async def scored() -> Any:
        return await transport(engines, tiny_model).ask(score_request("s", Prompt(text=prompt), completions))

    replies = [asyncio.run(scored()) for _ in range(2)]
    for reply in replies:
        assert (reply.error, reply.weights_sha) == ("", model_sha(tiny_model))
        for completion, score in zip(completions, scores_of(reply), strict=True):
            ids, n_prompt = encode(tokenizer, prompt, completion)
            with torch.no_grad():
                said = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(said[at - 1, ids[at]]) for at in range(n_prompt, len(ids)))
            assert n_prompt > 64 and score.tokens == len(ids) - n_prompt
            assert score.log_prob == pytest.approx(expected, abs=1e-3 * score.tokens)


def test_the_engine_itself_refuses_what_does_not_fit(engines: str, tiny_model: str) -> None:
    async def refused() -> Any:
        return await engine_handle(engines).ask.remote([5] * 1000, GREEDY, "too-long", None)

    assert asyncio.run(refused())["error"].startswith("refused")


def test_a_chat_prompt_goes_through_the_template_and_the_same_seed_gives_the_same_sample(engines: str, tiny_model: str) -> None:
    prompt = Prompt(messages=(Message(role="user", content="Write a request about billing."),))
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 12}

    async def sampled(seed: int) -> str:
        client = transport(app_name(RUN, "teacher"), tiny_model)
        return (await client.ask(Request(row_id="s", prompt=prompt, sampling=sampling | {"seed": seed}))).text

    first, again, other = (asyncio.run(sampled(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_more_seeded_prompt_tokens_than_a_step_takes_do_not_kill_the_engine(engines: str, tiny_model: str) -> None:
    """vLLM 0.29 on CPU dies on a seeded request whose prompt is prefilled in chunks ("CPU Generator does not use offset")."""

    async def flood() -> list[Any]:
        client = transport(app_name(RUN, "teacher"), tiny_model)
        sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 2}
        return await asyncio.gather(
            *[
                client.ask(
                    Request(row_id=str(n), prompt=Prompt(text=f"{n} {PROMPTS[n % 2] * 12}"), sampling=sampling | {"seed": n})
                )
                for n in range(40)
            ]
        )

    replies = asyncio.run(flood())
    assert sum(reply.prompt_tokens for reply in replies) > 2 * 2048  # more than one step's worth
    assert [reply.error for reply in replies] == [""] * 40 and len({reply.replica for reply in replies}) == 1


def test_stop_strings_end_an_answer(engines: str, tiny_model: str) -> None:
    async def answer(stop: tuple[str, ...]) -> Any:
        request = Request(row_id="s", prompt=Prompt(text=PROMPTS[0], stop=stop), sampling=GREEDY)
        return await transport(engines, tiny_model).ask(request)

    whole = asyncio.run(answer(())).text
    letter = whole[len(whole) // 2]
    assert asyncio.run(answer((letter,))).text == whole.split(letter)[0]


def test_a_replica_killed_in_the_middle_of_a_stage_loses_no_row(
    engines: str, tiny_model: str, other_model: str, tmp_path: Path
) -> None:
    """SIGKILL while rows are in flight: every row is answered, by the weights that were meant, and none is asked twice."""
    files = Files(str(tmp_path))
    labels = Classification(labels=["billing", "shipping"])
    rows = [Example(id=f"r-{n}", input=f"Where is parcel number {n}?", output="shipping") for n in range(60)]
    version = VersionStore(files).commit(rows, parent=None, iteration=0, about={})
    sha = model_sha(other_model)
    route = EngineRoute(app=engines, tokenizer=other_model, max_model_len=256, model="tiny", weights=(other_model, sha))
    spec = RoleSpec(
        asker=open_asker(served=True),
        name="student", role=Solve(labels, max_tokens=60), adds=SOLVED, route=route,
        answerer=Answerer(how="engine", model=sha, settings={}), run_root=files.root,
        replies="replies/student", in_flight=4,
    )  # fmt: skip
    stream = RayGraded(
        files=files,
        rows=version,
        solve=spec,
        iteration=0,
        inputs={},
        rows_per_block=2,
        prepare=lambda: None,
        in_flight_alone=spec.in_flight,
    )
    killed: list[int] = []

    def kill_midway() -> None:
        while len(list(read_replies(files, "replies/student"))) < 10:
            time.sleep(0.02)
        killed.append(asyncio.run(identity(engines))["pid"])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_midway)
    killer.start()
    stream.drain("rounds/killed")
    killer.join()
    answered = list(round_rows(files, "rounds/killed"))
    assert sorted(row["id"] for row in answered) == sorted(row.id for row in rows)
    assert {row["error"] for row in answered} == {""} and {row["weights_sha"] for row in answered} == {sha}
    assert len({row["replica"] for row in answered}) == 2, "the kill came too late to be in the middle"
    stored = [record["key"] for record in read_replies(files, "replies/student")]
    assert len(stored) == len(set(stored)) == len(rows)
    assert asyncio.run(identity(engines))["pid"] != killed[0]


def test_a_lora_export_gives_the_same_greedy_tokens_in_vllm(engines: str, tiny_model: str, tmp_path: Path) -> None:
    run = Run(tmp_path, tiny_model, method="lora", global_batch_size=8, micro_batch_size=8, updates=6, learning_rate=1e-2)
    student = run.trainer.train(run.version(rows_to_learn(0, 24)), None)
    run.trainer.close()
    assert (Path(student.path) / "adapter").is_dir() and student.sha != model_sha(tiny_model)
    assert greedy_tokens(engines, student.path) == greedy_tokens_in_transformers(student.path)
    assert greedy_tokens(engines, student.path) != greedy_tokens(engines, tiny_model), "an adapter that changes nothing"

    told = hand_off.read(student.path)
    assert told is not None and told.dtype == "float32" and len(told.rows) == 8
    load_weights(engines, student.path, student.sha)
    proof = asyncio.run(identity(engines))["hand_offs"][-1]
    assert (proof["with"], proof["weights_sha"]) == ("the trainer", student.sha)
    print("LoRA hand-off:", proof)
    # An export that left the adapter out, and one of which a part was never written; each under the sha that it has.
    without = tmp_path / "without"
    shutil.copytree(tiny_model, without)
    (without / "generation_config.json").write_text("{}")  # else it is the model that the engine was started with
    half = tmp_path / "half"
    shutil.copytree(student.path, half)
    weights = half / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    for folder in (without, half):
        (folder / hand_off.FILE).write_bytes(told.written())
        why = refused(engines, str(folder), model_sha(str(folder)))
        print(folder.name, why[-400:])
        assert "the engine does not compute with the weights" in why
    why = refused(engines, str(half), student.sha)  # under the sha of the whole
    assert student.sha in why and model_sha(str(half)) in why
    load_weights(engines, student.path, student.sha)


def test_serve_and_vllm_say_so_themselves(engines: str, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2llm_ray.runtime.driver import evidence
    from llm2llm_ray.storage.files import Files

    ask(engines, tiny_model, PROMPTS)
    spec = EngineSpec(role="student", app=engines, model=tiny_model, sha="", engine=EngineConfig())
    evidence.collect(Files(str(tmp_path)), [spec])
    logs = (tmp_path / "evidence" / "logs.txt").read_text()
    assert "V1 LLM engine" in logs
    series = (tmp_path / "evidence" / "metrics.prom").read_text()
    assert "ray_vllm_" in series and f'application="{engines}"' in series
    counted = sum(float(line.split()[-1]) for line in series.splitlines() if line.startswith("ray_vllm_request_success"))
    assert counted >= asyncio.run(identity(engines))["answered"] > 0, "not before Ray has told of the last answer"
    monkeypatch.setattr(evidence, "identities", lambda app: [])  # it has no replicas
    evidence.collect(Files(str(tmp_path / "other")), [replace(spec, app="llm2llm-other-student")])
    for name in ("logs.txt", "metrics.prom"):  # what another run's engines said proves nothing about this one
        assert (tmp_path / "other" / "evidence" / name).read_text() == ""
