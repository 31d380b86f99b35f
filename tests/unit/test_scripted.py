"""Scripted teacher and student: pure functions of what they are asked."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.asking.scripted import ScriptedStudent, ScriptedTeacher, check_unchanged, script_sha
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Message, Prompt, Reply

_SCRIPT = [
    {"match": "billing", "reply": "b0"},
    {"match": "billing", "reply": "b1", "finish_reason": "length"},
    {"match": "billing of cards", "reply": "c0"},
    {"reply": "free0"},
    {"reply": "free1"},
    {"reply": "free2"},
]


def _ask(teacher: ScriptedTeacher, text: str, seed: int = 0, temperature: float = 1.0) -> Reply:
    return asyncio.run(teacher.ask(Prompt(text=text), temperature=temperature, top_p=1.0, max_tokens=9, seed=seed))


def test_lines_with_one_match_take_turns_by_seed() -> None:
    teacher = ScriptedTeacher(_SCRIPT)
    assert [_ask(teacher, "write billing", seed).text for seed in (0, 1, 2, 7)] == ["b0", "b1", "b0", "b1"]
    assert _ask(teacher, "write billing", 1).finish_reason == "length"
    assert _ask(teacher, "write billing of cards", 1).text == "c0"


def test_without_a_match_prompt_and_seed_choose_among_the_free_lines() -> None:
    teacher = ScriptedTeacher(_SCRIPT)
    chosen = [_ask(teacher, f"prompt {k % 10}", k // 10).text for k in range(60)]
    assert set(chosen) == {"free0", "free1", "free2"}
    assert chosen == [_ask(ScriptedTeacher(_SCRIPT), f"prompt {k % 10}", k // 10).text for k in range(60)]


@settings(deadline=None)
@given(st.text(), st.integers(0, 2**31 - 1))
def test_state_and_settings_change_nothing(text: str, seed: int) -> None:
    used = ScriptedTeacher(_SCRIPT)
    _ask(used, "something else", 3)
    assert _ask(used, text, seed, temperature=0.0) == _ask(ScriptedTeacher(_SCRIPT), text, seed)


def test_no_line_that_fits_is_an_error_reply() -> None:
    reply = _ask(ScriptedTeacher(_SCRIPT[:3]), "account")
    assert (reply.finish_reason, reply.error, reply.text) == ("error", "no_scripted_reply", "")


def test_messages_are_matched_like_text_and_tokens_are_words() -> None:
    prompt = Prompt(messages=(Message(role="system", content="You write"), Message(role="user", content="one billing")))
    reply = asyncio.run(ScriptedTeacher(_SCRIPT).ask(prompt, temperature=1, top_p=1, max_tokens=1, seed=0))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("b0", 4, 1)


def test_file_latency_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, log = tmp_path / "replies.jsonl", tmp_path / "asked.jsonl"
    script.write_text('{"reply": "eins\\u2028zwei"}\n\n{"match": "ä", "reply": "ö"}\n', encoding="utf-8")
    teacher = ScriptedTeacher(script, latency_s=0.2, log_path=log)

    sleeping: list[float] = []
    at_once = asyncio.Event()

    async def sleep(seconds: float) -> None:
        """Passes when all twenty have come: one after the other, the first would never."""
        sleeping.append(seconds)
        if len(sleeping) == 20:
            at_once.set()
        await asyncio.wait_for(at_once.wait(), timeout=60)

    async def both() -> list[Reply]:
        texts = ["ä", *["x"] * 19]
        asked = [teacher.ask(Prompt(text=text), temperature=1, top_p=1, max_tokens=1, seed=5) for text in texts]
        return list(await asyncio.gather(*asked))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    replies = asyncio.run(both())
    assert sleeping == [0.2] * 20
    assert [r.text for r in replies] == ["ö", *["eins\u2028zwei"] * 19]
    assert replies[0].model == "scripted:replies.jsonl"
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["seed"] for line in logged] == [5] * 20
    shas = [line["prompt_sha"] for line in logged]
    assert len(set(shas)) == 2 and set(shas[1:]) == {shas[1]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"reply": "a"', ":2: not valid JSON"),
        ('["a"]', ":2: expected an object"),
        ('{"match": "a"}', ":2: reply: required, but missing"),
        ('{"reply": "a", "seed": 1}', ":2: seed: unknown field; known here: finish_reason, match, reply"),
        ('{"reply": 3}', ":2: reply: expected text, found 3"),
        ('{"reply": "a", "finish_reason": "done"}', ":2: finish_reason: write stop or length, found 'done'"),
    ],
)
def test_a_bad_script_names_file_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    script = tmp_path / "replies.jsonl"
    script.write_text(f'{{"reply": "fine"}}\n{line}\n')
    with pytest.raises(UserError) as error:
        ScriptedTeacher(script)
    assert f"{script}{message}" in str(error.value)


def test_missing_and_empty_scripts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
        ScriptedTeacher(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.jsonl: no replies"):
        ScriptedTeacher(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"binary\.jsonl:1: not UTF-8"):
        ScriptedTeacher(tmp_path / "binary.jsonl")


def test_student_answers_by_generation() -> None:
    student = ScriptedStudent(
        [
            {"input": "Request: refund\nIntent:", "answers": [" account", " billing"]},
            {"input": "refund", "answers": ["part"]},
            {"input": "und", "answers": ["shorter part"]},
        ]
    )
    assert [student.answer("Request: refund\nIntent:", g) for g in (0, 1, 2)] == [" account", " billing", " billing"]
    assert student.answer("Request: my refund\nIntent:", 0) == "part"
    assert student.answer("Request: other\nIntent:", 0) == ""


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input": "a"}, "reply 1: answers: required"),
        ({"input": "a", "answers": []}, "reply 1: answers: expected a list of texts"),
        ({"input": "", "answers": ["a"]}, "reply 1: input: expected text"),
    ],
)
def test_a_bad_student_script(record: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ScriptedStudent([record])


def test_a_script_that_changes_under_a_run_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "replies.jsonl"
    script.write_text('{"reply": "a"}\n')
    started = script_sha(str(script))
    check_unchanged(str(script), started)
    script.write_text('{"reply": "b"}\n')
    with pytest.raises(UserError, match=r"replies\.jsonl: not the file that this run was started with; start the run again"):
        check_unchanged(str(script), started)
