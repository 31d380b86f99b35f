"""The config file: every mistake is one message that names file, field and value and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llm2llm_ray.config import Config, RunConfig
from llm2llm_ray.config.file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.fingerprint import fingerprint

SMALL = "task: {name: classification, data: d}\nstudent: {model: m}\nteacher: {model: t}\nrun: {name: demo}\n"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(SMALL)
    return path


def refused(file: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(file, list(overrides))
    return str(error.value)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs").glob("**/*.yaml")), ids=lambda path: path.name)
def test_every_job_parses(path: Path) -> None:
    assert isinstance(load_config(path), Config)


@pytest.mark.parametrize(
    ("override", "field", "hint"),
    [
        ("student.learning_rat=1", "student.learning_rat", "did you mean learning_rate?"),
        ("studnet.model=m", "studnet", "did you mean student?"),
        ("student.lora.rnk=8", "student.lora.rnk", "did you mean rank?"),
        ("teacher.engine.replica=2", "teacher.engine.replica", "did you mean replicas?"),
        ("run.zzz=1", "run.zzz", "known here: name, folder, iterations, patience, keep, seed, tensorboard"),
    ],
)
def test_an_unknown_key_suggests_the_right_one(file: Path, override: str, field: str, hint: str) -> None:
    assert refused(file, override) == f"{file}: {field}: unknown key; {hint}"


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("run.iterations=two", "run.iterations", "'two'"),
        ("student.updates=1.5", "student.updates", "1.5"),
        ("student.updates=0", "student.updates", "0"),
        ("evaluation.early_at=1", "evaluation.early_at", "1"),
        ("student.updates=automatic", "student.updates", "'automatic'"),
        ("student.zero_stage=7", "student.zero_stage", "7"),
        ("student.learning_rate=-1", "student.learning_rate", "-1"),
        ("student.learning_rate=.nan", "student.learning_rate", "nan"),
        ("teacher.kind=api", "teacher.kind", "'api'"),
        ("run.name=A b", "run.name", "'A b'"),
        ("evaluation.error_source=cross", "evaluation.error_source", "'cross'"),
        ("evaluation.folds=1", "evaluation.folds", "1"),
    ],
)
def test_a_wrong_value_is_named(file: Path, override: str, field: str, value: str) -> None:
    message = refused(file, override)
    assert message.startswith(f"{file}: {field}: ") and message.endswith(f"(got {value})")


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    lines = refused(file, "run.iterations=0", "student.epoch=3").splitlines()
    assert [line.removeprefix(f"{file}: ").split(":")[0] for line in lines] == ["student.epoch", "run.iterations"]


@pytest.mark.parametrize("section", ["task", "student", "teacher", "run"])
def test_a_missing_section_is_named(file: Path, section: str) -> None:
    file.write_text("\n".join(line for line in SMALL.splitlines() if not line.startswith(section)))
    assert refused(file) == f"{file}: {section}: required, but missing"


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("teacher.kind=openai", "needs teacher.base_url"),
        ("teacher.base_url=https://user:secret@host/v1", "teacher.api_key_env"),
        ("teacher.budget.money=3", "needs the prices"),
        ("task.data=null", "give task.data"),
    ],
)
def test_fields_that_need_each_other_say_so(file: Path, override: str, remedy: str) -> None:
    assert remedy in refused(file, override)


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "just words", "a: b: c", "task: [unclosed"])
def test_a_file_that_is_no_config_is_the_users_mistake(file: Path, text: str) -> None:
    file.write_text(text)
    assert refused(file).startswith(f"{file}: ")


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: no such config file"


def test_a_file_that_cannot_be_read_is_the_users_mistake(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in refused(file)
    assert str(tmp_path) in refused(tmp_path)


def test_a_section_given_twice_is_the_users_mistake(file: Path) -> None:
    file.write_text(SMALL + "teacher: {model: other}\n")
    assert "teacher" in refused(file)


def test_set_overrides_the_file(file: Path) -> None:
    found = load_config(
        file,
        [
            "student.learning_rate=1e-5",
            "student.lora.target_modules=[q_proj, v_proj]",
            "task.options.labels.a=the first",
            "run.seed=3",
        ],
    )
    assert found.student.learning_rate == 1e-5
    assert found.student.lora.target_modules == ["q_proj", "v_proj"]
    assert found.task.options == {"labels": {"a": "the first"}}
    assert found.run.seed == 3


def test_the_last_set_wins_and_null_unsets(file: Path) -> None:
    found = load_config(file, ["student.updates=3", "student.updates=5", "teacher.budget.calls=9", "teacher.budget.calls=null"])
    assert (found.student.updates, found.teacher.budget.calls) == (5, None)


@pytest.mark.parametrize("override", ["student", "student.model.x=1"])
def test_a_set_that_names_no_field_is_told(file: Path, override: str) -> None:
    assert refused(file, override).startswith(f"--set {override}: ")


@pytest.mark.parametrize("value", ["[", "a: b: c", "'"])
def test_a_set_value_that_is_no_yaml_is_told(file: Path, value: str) -> None:
    assert refused(file, f"student.model={value}").startswith(f"--set student.model={value}: ")


def test_a_config_is_frozen(file: Path) -> None:
    found = load_config(file)
    with pytest.raises(ValidationError):
        found.run.iterations = 9  # type: ignore[misc]
    with pytest.raises(ValidationError):
        found.student = found.student  # type: ignore[misc]


def test_a_stored_config_is_the_config(file: Path) -> None:
    found = load_config(file, ["student.learning_rate=3e-5", "task.options.labels=[a, b]"])
    assert Config.model_validate_json(found.model_dump_json()) == found


def test_the_run_folder_is_folder_and_name(file: Path) -> None:
    assert load_config(file, ["run.folder=s3://bucket/runs/"]).run_path == "s3://bucket/runs/demo"


@given(st.text())
def test_a_run_name_is_a_safe_folder_name(name: str) -> None:
    try:
        RunConfig(name=name)
    except ValidationError:
        return
    assert name and not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-") and len(name) <= 41


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aé\u2028"', max_size=4)
)


@settings(max_examples=30)
@given(st.dictionaries(st.text("abé", max_size=3), plain | st.lists(plain, max_size=3), max_size=4))
def test_a_fingerprint_does_not_hang_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, object(), b"bytes", Path("a")],
    ids=lambda value: type(value).__name__ + str(value)[:3] if isinstance(value, float) else type(value).__name__,
)
def test_a_fingerprint_refuses_what_has_no_stable_form(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        fingerprint({"inputs": [value]})


def test_a_fingerprint_tells_values_and_types_apart() -> None:
    values = [0, 1, "1", 1.5, True, None, [], {}, [1], [[1]], {"a": 1}, {"b": 1}, "é", "e\u0301"]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_profile_gives_defaults_and_what_is_given_wins(file: Path) -> None:
    config = load_config(file, ["cluster.profile=node-8gpu"])
    assert (config.cluster.device, config.student.workers, config.teacher.engine.replicas) == ("gpu", 4, 3)
    config = load_config(file, ["cluster.profile=node-8gpu", "cluster.device=cpu"])
    assert config.cluster.device == "cpu" and config.student.workers == 4


def test_the_pools_profile_asks_for_a_node_group_each(file: Path) -> None:
    labels = load_config(file, ["cluster.profile=pools"]).cluster.labels
    assert {pool: set(wanted.values()) for pool, wanted in labels.items()} == {
        "train": {"train"}, "student": {"student"}, "teacher": {"teacher"},
    }  # fmt: skip


def test_an_unknown_profile_is_an_error(file: Path) -> None:
    assert "single-gpu" in refused(file, "cluster.profile=tpu")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "teacher.request.drop=[top-p]",
            "teacher.request.drop.0: Input should be 'temperature', 'top_p', 'max_tokens', 'seed' or",
        ),
        ("teacher.request.add={temperature: 1}", "teacher.request.add: temperature is not added here: set teacher.temperature"),
        ("teacher.request.add={stream: true}", "teacher.request.add: stream is not added here: replies are read whole"),
        ("teacher.request.add={since: 2026-01-01}", "teacher.request.add: Object of type date is not JSON serializable"),
        ("teacher.request.add={top_k: .nan}", "teacher.request.add: Out of range float values are not JSON compliant"),
        ("teacher.base_url=llm.example.com/v1", "teacher: teacher.base_url is no address: write http://host:port/v1"),
        ("teacher.base_url=http://host:99999/v1", "teacher: teacher.base_url is no address: write http://host:port/v1"),
        ("teacher.base_url=http://[::1/v1", "teacher: teacher.base_url is no address: write http://host:port/v1"),
        ("teacher.base_url=ftp://host/v1", "teacher: teacher.base_url is no address: write http://host:port/v1"),
    ],
)
def test_request_fields_and_addresses_that_no_service_takes(file: Path, override: str, message: str) -> None:
    assert refused(file, override).removeprefix(f"{file}: ").startswith(message)


@pytest.mark.parametrize(
    "override",
    [
        "teacher.request.add={api_key: hunter2}",
        "teacher.request.add={x-api-key: hunter2}",
        "teacher.request.add={extra: [{Authorization: hunter2}]}",
        "teacher.request.add={auth: {user: me, value: hunter2}}",
        "teacher.request.add={note: Bearer hunter2}",
        "teacher.request.add={note: [sk-hunter2hunter2]}",
        "teacher.base_url='http://host/v1?api-key=hunter2'",
        "teacher.base_url=http://hunter2@host/v1",
        "student.engine.engine_kwargs={hf_token: hunter2}",
    ],
)
def test_a_key_is_refused_where_it_would_be_stored_and_is_not_shown(file: Path, override: str) -> None:
    message = refused(file, override)
    assert "key" in message and "stored with the run" in message and "environment" in message
    assert "hunter2" not in message


def test_fields_that_only_sound_like_a_key_are_let_through(file: Path) -> None:
    fields = "{max_completion_tokens: 5, prompt_cache_key: rows, stop_token_ids: [1], tokenizer: auto, token: true}"
    config = load_config(file, [f"teacher.request.add={fields}", "teacher.request.drop=[seed, top_p]"])
    assert list(config.teacher.request.add) == [
        "max_completion_tokens", "prompt_cache_key", "stop_token_ids", "tokenizer", "token",
    ]  # fmt: skip
    assert config.teacher.request.drop == ("seed", "top_p")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gates.relabel.votes=3", "gates.relabel.needed=4"], "no row could pass; lower needed or raise votes"),
        (["gates.relabel.votes=3", "gates.relabel.temperature=0"], "at temperature 0 every vote is the same one"),
        (["judge={kind: recorded, model: r.jsonl}"], "recorded replies are not built for a judge"),
        (["judge={kind: scripted, model: r.jsonl, temprature: 1}"], "judge.temprature: unknown key; did you mean temperature?"),
    ],
)
def test_what_a_gate_by_meaning_cannot_do_is_said(overrides: list[str], message: str, file: Path) -> None:
    assert message in refused(file, *overrides)


def test_a_judge_is_asked_only_where_votes_are(file: Path) -> None:
    judge = "judge={kind: scripted, model: votes.jsonl}"
    off, on, own = (load_config(file, given) for given in ([judge, "gates.relabel.votes=0"], [judge], []))
    assert (off.judge_apart, on.judge_apart, own.judge_apart) == (None, on.judge, None)
    assert (on.voter, own.voter) == (on.judge, own.teacher)
    assert [load_config(file, [f"gates.relabel.votes={n}"]).gates.relabel.least for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
