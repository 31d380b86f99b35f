"""What the report says of the gates: a text is seen by all gates up to the one that turns it away, and votes have a price."""

from __future__ import annotations

from pathlib import Path

from finished_run import Writer, config
from stream_rows import Stream, augmented, judged

from llm2llm_ray.history.record import RunRecord
from llm2llm_ray.report import render
from llm2llm_ray.report.gates import Gate, gates
from llm2llm_ray.report.outcomes import rejections

ROWS = [
    judged(augmented("s-1", "Can I pay this by bank transfer?", rejected=["empty", "relabelled"]), "confirmed", "doubted",
           said=["billing", "account"]),
    judged(augmented("s-2", "where do I change my CARD?", rejected=["judge_error", "teacher_error"]), "confirmed", "unheard",
           said=["billing", "unavailable: away"]),
]  # fmt: skip


def written(folder: Path, rows: list[dict[str, object]]) -> RunRecord:
    writer = Writer(folder, config(gates={"relabel": {"votes": 3}}, teacher={"budget": {"price_per_million_prompt_tokens": 1e4}}))
    writer.start()
    seeds = writer.versions.seed()
    writer.train(seeds, "000")
    writer.versions.extend(seeds, Stream(writer.files, rows))
    return RunRecord(writer.files)


def told(run: RunRecord) -> list[Gate]:
    return gates(run, rejections(run.mistakes(), {}))


def test_each_gate_sees_what_those_before_it_left(tmp_path: Path) -> None:
    run = written(tmp_path / "run", ROWS)
    found = [(gate.name, gate.seen, gate.removed) for gate in told(run)]
    assert found == [
        ("the reply itself: its form, length and answer", 5, 1), ("blind votes (gates.relabel)", 4, 2),
        ("rows that are there", 2, 1),
    ], "one accepted, one empty, two that votes turned away, one duplicate; no text came with the teacher's error"  # fmt: skip
    votes = next(gate for gate in told(run) if "votes" in gate.name)
    assert votes.cost == "4 votes, 106 tokens: 2 confirmed, 1 in doubt, 1 without enough votes"
    page = render(run)
    assert "What each gate did" in page and votes.cost in page and "Votes on new rows" in page
    assert "gates.relabel" in page and "fewer than 2 of 3 blind votes" in page


def test_rows_that_are_kept_in_doubt_are_told(tmp_path: Path) -> None:
    rows = [judged(augmented("s-1", "Can I pay this by bank transfer?"), "doubted", said=["account"])]
    (form, votes) = told(written(tmp_path / "run", rows))
    assert (form.removed, votes.removed) == (0, 0)
    assert votes.cost.endswith("0 confirmed, 1 in doubt, 1 of these kept")


def test_a_run_without_votes_says_nothing_of_them(tmp_path: Path) -> None:
    rows = [augmented("s-1", "Can I pay this by bank transfer?", rejected=["empty"])]
    assert [gate.name for gate in told(written(tmp_path / "run", rows))] == ["the reply itself: its form, length and answer"]
