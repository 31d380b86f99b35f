"""The reply store: nothing is returned before it is durable, nothing durable is lost, crashes cost at most a line."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.errors import UserError
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import ReplyLog, read_replies
from llm2llm_ray.types import Reply

REPO = Path(__file__).parents[2]

# Puts replies in groups for ever and says which of them are durable.
WRITER = """
import asyncio
from llm2llm_ray.storage.files import Files
from llm2llm_ray.storage.replies import ReplyLog
from llm2llm_ray.types import Reply

async def main():
    log, number = ReplyLog(Files({root!r}), "replies"), 0

    async def one(n):
        await log.put(f"k{{n}}", Reply(text="x" * 5000, finish_reason="stop"), {{"n": n}})
        print(f"k{{n}}", flush=True)

    while True:
        await asyncio.gather(*(one(number + k) for k in range(20)))
        number += 20

asyncio.run(main())
"""


def reply(text: str) -> Reply:
    return Reply(text=text, finish_reason="stop", prompt_tokens=7, completion_tokens=3, model="m", weights_sha="w")


def put_all(log: ReplyLog, items: dict[str, Reply]) -> list[Reply]:
    async def go() -> list[Reply]:
        return await asyncio.gather(*(log.put(key, item, {"key": key}) for key, item in items.items()))

    return asyncio.run(go())


def segments(root: Path) -> list[Path]:
    return sorted((root / "replies").glob("segment-*.jsonl"))


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(st.characters(), max_size=40) | st.just("\ud83d half"), min_size=1, max_size=6))
def test_any_text_is_found_again_by_whoever_opens_the_log(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    files = Files(str(tmp_path_factory.mktemp("run")))
    items = {f"k{number}": reply(text) for number, text in enumerate(texts)}
    log = ReplyLog(files, "replies")
    assert put_all(log, items) == list(items.values())
    log.close()
    for opened in (log, ReplyLog(files, "replies")):
        assert {key: opened.find(key) for key in items} == items
        assert len(opened) == len(items)
    assert opened.torn == 0


def test_puts_that_arrive_together_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, real, synced = ReplyLog(Files(str(tmp_path)), "replies"), os.fsync, []

    def count(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", count)
    put_all(log, {f"k{number}": reply("x") for number in range(200)})
    groups = [path for path in synced if path.endswith(".jsonl")]
    assert len(groups) == log.syncs < 20
    assert len(segments(tmp_path)) == 1


def test_put_returns_only_after_the_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, real, seen = ReplyLog(Files(str(tmp_path)), "replies"), os.fsync, []

    def note(handle: int) -> None:
        real(handle)
        seen.append("fsync")

    async def one() -> None:
        await log.put("k", reply("x"), {})
        seen.append("returned")

    monkeypatch.setattr(os, "fsync", note)
    asyncio.run(one())
    assert seen[-1] == "returned" and seen.count("fsync") >= 2  # the file, and the folder that names it


def test_the_first_durable_reply_of_a_key_stands(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    one, *more = (ReplyLog(files, "replies") for _ in range(7))  # none sees what the others put
    assert put_all(one, {"k": reply("first")}) == [reply("first")]
    assert put_all(one, {"k": reply("again")}) == [reply("first")]
    for number, log in enumerate(more):
        assert put_all(log, {"k": reply(f"late {number}")}) == [reply(f"late {number}")]
    opened = ReplyLog(files, "replies")
    assert opened.find("k") == reply("first")
    assert put_all(opened, {"k": reply("third")}) == [reply("first")]
    # All were paid for, and all are kept to be counted.
    assert len([record for record in read_replies(files, "replies") if record["key"] == "k"]) == 7


def test_the_same_key_twice_at_once_is_stored_once(tmp_path: Path) -> None:
    log = ReplyLog(Files(str(tmp_path)), "replies")

    async def go() -> list[Reply]:
        return await asyncio.gather(log.put("k", reply("one"), {}), log.put("k", reply("two"), {}))

    assert asyncio.run(go()) == [reply("one"), reply("one")]
    assert segments(tmp_path)[0].read_bytes().count(b"\n") == 1


def test_at_every_length_a_torn_segment_keeps_its_whole_lines(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    put_all(ReplyLog(files, "replies"), {"k0": reply("zero"), "k1": reply("one\n")})
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(0, len(whole) + 1, 7):
        segment.write_bytes(whole[:length])
        opened = ReplyLog(files, "replies")
        assert (opened.find("k0") is not None) == (length >= first)
        assert (opened.find("k1") is not None) == (length == len(whole))
        assert opened.torn == (length not in (0, first, len(whole)))


def test_after_a_torn_line_writing_goes_on_elsewhere(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    put_all(ReplyLog(files, "replies"), {"k0": reply("zero")})
    (segment,) = segments(tmp_path)
    with segment.open("ab") as stream:
        stream.write(b'{"time":1.0,"key":"k1","request":{')
    torn = segment.read_bytes()
    put_all(ReplyLog(files, "replies"), {"k1": reply("one")})
    opened = ReplyLog(files, "replies")
    assert (opened.find("k0"), opened.find("k1"), opened.torn) == (reply("zero"), reply("one"), 1)
    assert segment.read_bytes() == torn


def test_zeros_left_by_a_power_loss_are_a_torn_line(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    put_all(ReplyLog(files, "replies"), {"k0": reply("zero")})
    with segments(tmp_path)[0].open("ab") as stream:
        stream.write(bytes(64) + b"\n")
    assert ReplyLog(files, "replies").torn == 1


def test_a_failed_write_is_told_to_every_caller_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(str(tmp_path))
    log, real = ReplyLog(files, "replies"), os.fsync
    put_all(log, {"k0": reply("zero")})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    async def go() -> list[Reply | BaseException]:
        puts = (log.put(key, reply("x"), {}) for key in ("k1", "k2"))
        return await asyncio.gather(*puts, return_exceptions=True)

    monkeypatch.setattr(os, "fsync", full)
    outcomes = asyncio.run(go())
    assert [type(outcome) for outcome in outcomes] == [UserError, UserError]
    assert str(outcomes[0]).startswith(f"run.folder {tmp_path}: No space left on device; free some space there")
    assert "k1" not in log
    monkeypatch.setattr(os, "fsync", real)
    assert asyncio.run(go()) == [reply("x"), reply("x")]
    assert len(segments(tmp_path)) == 2  # nothing is written behind a failed write
    assert ReplyLog(files, "replies").find("k2") == reply("x")


def test_a_cancelled_caller_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    log = ReplyLog(Files(str(tmp_path)), "replies")

    async def go() -> Reply:
        gone = asyncio.create_task(log.put("k1", reply("one"), {}))
        stays = asyncio.create_task(log.put("k2", reply("two"), {}))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(go()) == reply("two")
    assert log.find("k1") == reply("one")  # it was on its way, and is paid for


def test_what_a_killed_process_was_told_is_durable_is_there(tmp_path: Path) -> None:
    code = WRITER.format(root=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(130)]
    process.kill()
    told += process.communicate(timeout=60)[0].split()
    opened = ReplyLog(Files(str(tmp_path)), "replies")
    assert len(told) >= 130
    assert all(opened.find(key) is not None for key in told)
    assert opened.torn <= 1


def test_a_record_says_what_was_asked_and_what_came(tmp_path: Path) -> None:
    files = Files(str(tmp_path))

    async def go() -> None:
        await ReplyLog(files, "replies").put("k", reply("x"), {"row_id": "s-1", "ordinal": 2, "attempt": 1})

    asyncio.run(go())
    (record,) = read_replies(files, "replies")
    assert record["request"] == {"row_id": "s-1", "ordinal": 2, "attempt": 1}
    assert Reply(**record["reply"]) == reply("x")
    assert record["time"] > 1.7e9


def test_without_a_local_folder_each_group_is_an_object(tmp_path: Path) -> None:
    files = Files(str(tmp_path), filesystem=pafs.LocalFileSystem())
    log = ReplyLog(files, "replies")
    put_all(log, {f"k{number}": reply(str(number)) for number in range(50)})
    put_all(log, {"late": reply("late")})
    assert len(segments(tmp_path)) == log.syncs < 10
    assert ReplyLog(files, "replies").find("k49") == reply("49")
    assert log.find("late") == reply("late")
