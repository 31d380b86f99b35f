"""Stage records stand once written; the journal survives a torn line."""

import math
import threading
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.stages import Events, StageRecords, stage_key

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
INPUTS = {"dataset": "ab12", "learning_rate": 1e-5}


@given(inputs=st.dictionaries(st.text(max_size=8), scalars, max_size=5))
def test_a_key_does_not_depend_on_the_order_of_its_inputs(inputs: dict[str, Any]) -> None:
    assert stage_key("train", 1, inputs) == stage_key("train", 1, dict(reversed(inputs.items())))


def test_name_version_and_inputs_make_the_key() -> None:
    keys = {
        stage_key("train", 1, INPUTS),
        stage_key("train", 2, INPUTS),
        stage_key("evaluate", 1, INPUTS),
        stage_key("train", 1, {**INPUTS, "learning_rate": 2e-5}),
    }
    assert len(keys) == 4


def test_an_input_without_a_stable_form_is_refused() -> None:
    with pytest.raises(TypeError):
        stage_key("train", 1, {"labels": {"a", "b"}})


@pytest.fixture(params=["local", "pyarrow"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(str(tmp_path), filesystem=None if request.param == "local" else pafs.LocalFileSystem())


def record(files: Files, name: str, key: str, result: dict[str, Any], **more: Any) -> dict[str, Any]:
    return StageRecords(files).record(name, key, inputs=INPUTS, result=result, started=1.0, ended=2.5, **more)


def test_the_first_record_of_a_stage_stands(files: Files) -> None:
    key = stage_key("train", 1, INPUTS)
    assert StageRecords(files).find("train", key) is None
    first = record(files, "train", key, {"path": "students/1"}, iteration=1)
    assert record(files, "train", key, {"path": "students/other"}, iteration=1) == first
    # Also from another iteration: the result follows from the inputs, so it is the same stage.
    assert record(files, "train", key, {"path": "students/other"}, iteration=2) == first
    assert StageRecords(files).find("train", key) == first
    assert (first["result"], first["inputs"], first["ended"]) == ({"path": "students/1"}, INPUTS, 2.5)
    assert files.list("stages") == [f"stages/train-001-{key[:16]}.json"] == [StageRecords.path_of(first)]


def test_records_are_told_apart_by_their_whole_name_and_key(files: Files) -> None:
    key = stage_key("train", 1, INPUTS)
    record(files, "train-lora", key, {})
    record(files, "baseline", key[:16] + "0" * 48, {})
    assert StageRecords(files).find("train", key) is None
    assert StageRecords(files).find("baseline", key) is None
    assert [found["name"] for found in StageRecords(files).all()] == ["baseline", "train-lora"]


def test_a_metric_that_is_not_a_number_does_not_cost_the_record(files: Files) -> None:
    assert math.isnan(record(files, "train", "0" * 64, {"loss": float("nan")})["result"]["loss"])


def test_events_are_read_in_the_order_they_came(files: Files) -> None:
    events = Events(files)
    assert list(events.read()) == []
    for number in range(5):
        events.add("stage_started", stage="train", iteration=number, note="line\nbreak \u2028 \ud83d")
    found = list(Events(files).read())
    assert [event["iteration"] for event in found] == list(range(5))
    assert {event["event"] for event in found} == {"stage_started"}
    assert found[0]["note"] == "line\nbreak \u2028 \ud83d"
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)


def test_a_torn_event_does_not_swallow_the_next(tmp_path: Path) -> None:
    events = Events(Files(str(tmp_path)))
    events.add("one")
    with (tmp_path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"time": 1.0, "ev')
    events.add("two")
    assert [event["event"] for event in events.read()] == ["one", "two"]


def test_events_from_threads_keep_whole_lines(tmp_path: Path) -> None:
    events = Events(Files(str(tmp_path)))
    threads = [threading.Thread(target=lambda: [events.add("e", text="x" * 3000) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(events.read())) == 80
