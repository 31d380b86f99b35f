"""One role of one stream in the asker's process: a real client, a local service, and a reply store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openai_server import Answer, answer, failure, serving
from stream_rows import SCHEMA, VOTED, solved

from llm2llm_ray.asking.answerer import teacher as teacher_answerer
from llm2llm_ray.config import AugmentationConfig, BudgetConfig, RelabelConfig, TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.rounds.augmenting import ASKED, Augment, Peers
from llm2llm_ray.rounds.judging import JUDGED, Judge
from llm2llm_ray.runtime.streaming.asker import Asker
from llm2llm_ray.runtime.streaming.stream_role import RoleSpec, StreamRole
from llm2llm_ray.runtime.streaming.transports import ServiceRoute
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import read_replies
from llm2llm_ray.tasks.classification import Classification
from llm2llm_ray.types import Example

TASK = Classification(labels=["billing", "account"])
SEEDS = [Example(id=f"s-{i}", input=f"Question number {i}?", output="billing") for i in range(4)]
ANSWER = answer('{"examples": [{"text": "Can I pay this by bank transfer?", "label": "billing"}]}')


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-of-the-test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def asked(folder: Path, url: str, rows: int, *, in_flight: int = 1) -> list[dict[str, Any]]:
    """What the teacher's role makes of so many wrong rows."""
    config = TeacherConfig(
        kind="openai", model="big", base_url=url, api_key_env="TEACHER_KEY", max_retries=0, timeout_s=5
    )  # fmt: skip
    role = Augment(
        TASK, Peers(TASK, SEEDS), teacher=config, settings=AugmentationConfig(attempts=1), iteration=0, run_seed=7
    )  # fmt: skip
    spec = RoleSpec(
        name="teacher", role=role, adds=ASKED, route=ServiceRoute(teacher=config), answerer=teacher_answerer(config, ""),
        run_root=str(folder), replies="replies/teacher-000", in_flight=in_flight, asker=None,
    )  # fmt: skip
    schema = pa.schema([column for column in SCHEMA if column.name not in ASKED])
    block = [{name: solved(f"r-{n:02d}", correct=False)[name] for name in schema.names} for n in range(rows)]

    async def go() -> list[dict[str, Any]]:
        stream = StreamRole(spec)
        try:
            return (await stream.answer(pa.Table.from_pylist(block, schema=schema))).to_pylist()
        finally:
            stream.close()

    return asyncio.run(go())


def stored(folder: Path) -> set[str]:
    return {record["request"]["row_id"] for record in read_replies(Files(str(folder)), "replies/teacher-000")}


def test_what_was_answered_is_kept_and_only_the_rest_is_asked_again(tmp_path: Path) -> None:
    with serving(ANSWER, failure(503, "busy"), ANSWER, failure(400, "no such field"), ANSWER) as service:
        first = asked(tmp_path, service.url, 5)
        assert [row["teacher_error"] for row in first] == ["", "unavailable", "", "bad_request", ""]
        assert stored(tmp_path) == {"r-00", "r-02", "r-04"}
        again = asked(tmp_path, service.url, 5)
        assert len(service.requests) == 5 + 2
    assert [row["teacher_error"] for row in again] == [""] * 5
    assert {row["id"] for row in again if row["candidates"] != "[]"} == {f"r-{n:02d}" for n in range(5)}


def test_a_service_that_is_gone_is_not_asked_for_every_row(tmp_path: Path) -> None:
    with serving(ANSWER, failure(503)) as service:
        rows = asked(tmp_path, service.url, 30)
        assert len(service.requests) == 1 + 8
    assert [row["teacher_error"] for row in rows] == ["", *["unavailable"] * 29]
    assert "not sent" in rows[-1]["rejected"] and "HTTP 503" in rows[1]["rejected"]


def test_a_teacher_that_votes_itself_pays_from_one_budget_by_one_line_and_no_vote_twice(tmp_path: Path) -> None:
    """Two rows: two calls for their new texts, which are one text, and two votes on it; the budget is for four calls."""
    votes = RelabelConfig(votes=3)
    with serving(ANSWER, ANSWER, answer("billing"), answer("Billing")) as service:
        config = TeacherConfig(
            kind="openai", model="big", base_url=service.url, api_key_env="TEACHER_KEY", budget=BudgetConfig(calls=4)
        )  # fmt: skip
        roles = {
            "teacher": (
                Augment(TASK, Peers(TASK, SEEDS), teacher=config, settings=AugmentationConfig(), iteration=0, run_seed=7), ASKED
            ),
            "judge": (Judge(TASK, SEEDS[:1], settings=votes, asked=config, run_seed=7), JUDGED),
        }  # fmt: skip

        async def go() -> list[dict[str, Any]]:
            asker = Asker(tokenizes=False)
            schema = pa.schema([column for column in SCHEMA if column.name not in ASKED])
            rows = [{name: solved(f"r-{n}", correct=False)[name] for name in schema.names} for n in range(2)]
            table = pa.Table.from_pylist(rows, schema=schema)
            for name, (role, adds) in roles.items():
                spec = RoleSpec(
                    name=name, role=role, adds=adds, route=ServiceRoute(teacher=config), answerer=teacher_answerer(config, ""),
                    run_root=str(tmp_path), replies=f"replies/{name}-000", in_flight=1, asker=None, budget=config.budget,
                    budget_replies=("replies/teacher-000", "replies/judge-000"),
                )  # fmt: skip
                made = asyncio.get_running_loop().create_future()
                made.set_result(spec)
                table = await asker.answer("a stream", name, [made], table)
            return table.to_pylist()

        first = asyncio.run(go())
        assert len(service.requests) == 4
        again = asyncio.run(go())
        assert len(service.requests) == 4, "everything is stored"
    for rows in (first, again):
        assert [row["budget_stop"] for row in rows] == [False, False]
        assert [json.loads(row["votes"])[0]["verdict"] for row in rows] == ["confirmed", "confirmed"]
        assert [row["judged"] for row in rows] == [2, 2]
    assert set(first[0]) == set(VOTED.names)


@pytest.mark.parametrize("sign", [ANSWER, failure(400, "this one is refused")], ids=["answer", "refusal"])
def test_a_sign_of_life_counts_from_the_beginning_again(tmp_path: Path, sign: Answer) -> None:
    with serving(*[failure(503)] * 7, sign, *[failure(503)] * 7, ANSWER) as service:
        asked(tmp_path, service.url, 20)
        assert len(service.requests) == 20


def test_a_key_that_is_revoked_on_the_way_is_the_users_mistake(tmp_path: Path) -> None:
    with (
        serving(ANSWER, failure(401, "revoked")) as service,
        pytest.raises(UserError, match=r"HTTP 401.*check the key in TEACHER_KEY"),
    ):
        asked(tmp_path, service.url, 3)
    assert stored(tmp_path) == {"r-00"}
