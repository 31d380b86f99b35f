"""The commit gates: what a version may hold, whatever order the replies came in."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.augmentation import commit, similarity
from llm2llm_ray.augmentation.caps import Caps
from llm2llm_ray.augmentation.commit import Admitted, Candidate, CommitGates, Refused
from llm2llm_ray.augmentation.held_out import HeldOut
from llm2llm_ray.config import AugmentationConfig, CapsConfig
from llm2llm_ray.tasks.normal_form import same_text
from llm2llm_ray.types import Example, Lineage

_SEED = Example(id="s-1", input="Where do I change my card?", output="billing")
_LONG = "I was charged twice for the same order last week and nobody at your company has answered me yet"
_TEST = Example(id="t-1", input=_LONG, output="refund", origin="seed")


def _candidate(
    text: str, output: str = "billing", *, seed_id: str = "s-1", ordinal: int = 0, attempt: int = 0, index: int = 0
) -> Candidate:
    lineage = Lineage(
        seed_id=seed_id,
        parent_id=seed_id,
        iteration=ordinal,
        ordinal=ordinal,
        attempt=attempt,
        wrong_answer="account",
        prompt_sha="9f3c",
        teacher="t",
        sampling_seed=1,
    )
    return Candidate(input=text, output=output, lineage=lineage, index=index)


def _gates(**settings: float) -> CommitGates:
    chosen = AugmentationConfig(**settings)
    return CommitGates([_SEED], HeldOut([_TEST], chosen.near_test), chosen, lambda output: output.strip().lower() or None)


def _verdicts(gates: CommitGates, *candidates: Candidate) -> list[tuple[str, str]]:
    return [
        ("", outcome.example.id[:2]) if isinstance(outcome, Admitted) else (outcome.rejected.reason, outcome.rejected.detail)
        for outcome in gates.admit(candidates)
    ]


def test_each_reason_names_the_other_row() -> None:
    assert _verdicts(_gates(), _candidate("where do I change my CARD")) == [("duplicate", "of s-1 (1.00)")]
    assert _verdicts(_gates(), _candidate("My card: where do I change?")) == [("near_duplicate", "of s-1 (0.99)")]
    assert _verdicts(_gates(), _candidate(_SEED.input, "account")) == [("conflicting_label", "of s-1 (1.00)")]
    assert _verdicts(_gates(), _candidate(_LONG.upper())) == [("contaminated", "by t-1 (1.00)")]
    assert _verdicts(_gates(), _candidate("Where is the newest invoice?")) == [("", "a-")]


def test_the_answer_decides_a_conflict_not_its_wording() -> None:
    assert _verdicts(_gates(), _candidate(_SEED.input, " BILLING")) == [("duplicate", "of s-1 (1.00)")]


def test_dev_and_test_rows_are_kept_farther_off_than_rows() -> None:
    changed = _LONG.replace("charged", "billed").replace("week", "month").replace("nobody", "none")
    assert _verdicts(_gates(), _candidate(changed)) == [("contaminated", "by t-1 (0.84)")]
    assert _verdicts(_gates(near_test=0.9), _candidate(changed)) == [("", "a-")]


def test_contamination_comes_before_any_other_reason() -> None:
    gates = CommitGates([_SEED], HeldOut([_SEED], 0.8), AugmentationConfig(), str.strip)
    assert _verdicts(gates, _candidate(_SEED.input)) == [("contaminated", "by s-1 (1.00)")]


def test_an_admitted_row_counts_against_the_next() -> None:
    first, second = _candidate("Where is it?", ordinal=0), _candidate("where is it", ordinal=1)
    own = first.example().id
    assert _verdicts(_gates(), second, first) == [("", "a-"), ("duplicate", f"of {own} (1.00)")]
    gates = _gates()
    assert _verdicts(gates, first) == [("", "a-")]
    assert _verdicts(gates, second) == [("duplicate", f"of {own} (1.00)")]


def test_canonical_order_is_seed_ordinal_attempt_index() -> None:
    candidates = [
        _candidate(f"text number {name}", seed_id=seed_id, ordinal=ordinal, attempt=attempt, index=index)
        for name, (seed_id, ordinal, attempt, index) in zip(
            "abcde", [("s-1", 0, 0, 0), ("s-1", 0, 0, 1), ("s-1", 0, 1, 0), ("s-1", 10, 0, 0), ("s-2", 0, 0, 0)], strict=True
        )
    ]
    seen = [outcome.candidate.input[-1] for outcome in _gates().admit(reversed(candidates))]
    assert seen == list("abcde")


def test_the_row_keeps_its_lineage_and_its_id_depends_on_it() -> None:
    candidate = _candidate("Where is it?")
    row = candidate.example()
    assert (row.input, row.output, row.origin, row.lineage) == ("Where is it?", "billing", "augmented", candidate.lineage)
    # printf '["s-1", 0, 0, 0, "Where is it?", "billing"]' | sha256sum: another recipe would rename stored rows.
    assert row.id == "a-b05ce5a12c79b65e"
    variants = [
        _candidate("Where is it?", ordinal=1),
        _candidate("Where is it?", attempt=1),
        _candidate("Where is it?", index=1),
        _candidate("Where is it?", seed_id="s-2"),
        _candidate("Where is it?", "account"),
        _candidate("Where is that?"),
    ]
    assert len({row.id, *(variant.example().id for variant in variants)}) == 7


def test_a_row_in_doubt_keeps_its_weight_and_its_id() -> None:
    sure = _candidate("Where is the newest invoice?")
    found = [outcome.example for outcome in _gates().admit([replace(sure, weight=0.25)]) if isinstance(outcome, Admitted)]
    assert found == [replace(sure.example(), weight=0.25)]


def _capped(existing: list[Example], **caps: int) -> CommitGates:
    settings = AugmentationConfig()
    found = Caps(CapsConfig(**caps), lambda row: row.output, existing)
    return CommitGates([_SEED], HeldOut([_TEST], settings.near_test), settings, str.strip, found)


def test_a_version_holds_no_more_new_rows_of_a_seed_or_class_than_the_caps_say() -> None:
    texts = [f"{word} is it?" for word in ("where", "when", "whose", "which", "how large")]
    rows = [
        _candidate(texts[0], seed_id="s-1", ordinal=0), _candidate(texts[1], "account", seed_id="s-1", ordinal=1),
        _candidate(texts[2], seed_id="s-1", ordinal=2), _candidate(texts[3], seed_id="s-2"), _candidate(texts[4], seed_id="s-3"),
    ]  # fmt: skip
    admitted = ("", "a-")
    assert _verdicts(_capped([], per_seed=2), *rows) == [
        admitted, admitted, ("seed_cap", "2 new rows from s-1"), admitted, admitted,
    ]  # fmt: skip
    assert _verdicts(_capped([], per_class=2), *rows) == [
        admitted, admitted, admitted, ("class_cap", "2 new rows of billing"), ("class_cap", "2 new rows of billing"),
    ]  # fmt: skip
    earlier = [_SEED, _candidate("Earlier one?", seed_id="s-1").example()]
    assert _verdicts(_capped(earlier, per_seed=2), *rows) == [
        admitted, ("seed_cap", "2 new rows from s-1"), ("seed_cap", "2 new rows from s-1"), admitted, admitted,
    ], "rows of earlier iterations count, rows that were given do not"  # fmt: skip
    assert _verdicts(_capped(earlier), *rows) == [admitted] * 5


def test_a_row_that_is_refused_for_itself_takes_no_place() -> None:
    copy, own = _candidate(_SEED.input, ordinal=0), _candidate("Where is it?", ordinal=1)
    assert _verdicts(_capped([], per_seed=1), copy, own) == [("duplicate", "of s-1 (1.00)"), ("", "a-")]


_CANDIDATES = st.lists(
    st.builds(
        _candidate,
        st.text("ab 1", min_size=1, max_size=6) | st.text(min_size=1, max_size=12),
        st.sampled_from(["billing", "account"]),
        seed_id=st.sampled_from(["s-1", "s-2"]),
        ordinal=st.integers(0, 2),
        attempt=st.integers(0, 2),
        index=st.integers(0, 2),
    ),
    max_size=10,
)


@settings(deadline=None)
@given(_CANDIDATES, st.randoms(use_true_random=False))
def test_arrival_order_changes_nothing_and_no_text_stands_twice(candidates: list[Candidate], draw: random.Random) -> None:
    outcomes = list(_gates().admit(candidates))
    assert outcomes == list(_gates().admit(draw.sample(candidates, len(candidates))))
    admitted = [outcome.example for outcome in outcomes if isinstance(outcome, Admitted)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert len(admitted) + len(refused) == len(candidates)
    for position, row in enumerate(admitted):
        for other in [_SEED, _TEST, *admitted[:position]]:
            # Rows without a visible character are the empty gate's business.
            assert not row.input.split() or not same_text(row.input, other.input)


@pytest.mark.parametrize(("ahead", "flushed"), [(1, 1000), (3, 1000), (3, 2), (1000, 2)])
def test_how_many_are_looked_for_at_once_changes_no_verdict(ahead: int, flushed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(4)
    words = [f"{first}{rest}" for first in "abcdefgh" for rest in ("lpha", "ravo")]
    texts = [" ".join(draw.choices(words, k=draw.choice([2, 13]))) for _ in range(12)]
    texts += [_LONG, _SEED.input, *(text.upper() for text in texts), *(f"{text} really" for text in texts)]
    candidates = [
        _candidate(text, draw.choice(["billing", "refund"]), index=k) for k, text in enumerate(draw.sample(texts, len(texts)))
    ]
    usual = _verdicts(_gates(), *candidates)
    assert {reason for reason, _ in usual} == {"", "duplicate", "near_duplicate", "conflicting_label", "contaminated"}
    monkeypatch.setattr(commit, "AHEAD", ahead)
    monkeypatch.setattr(similarity, "_FLUSHED_ROWS", flushed)
    assert _verdicts(_gates(), *candidates) == usual


def test_rows_over_the_bound_are_turned_away_seed_by_seed_in_turn() -> None:
    drafts = [
        _candidate("Why was the invoice of May so high?", seed_id="s-1", ordinal=0),
        _candidate("Can my bank see what I bought?", seed_id="s-1", ordinal=1),
        _candidate("where do I change my CARD", seed_id="s-2", ordinal=0),  # a duplicate takes nobody's place
        _candidate("Is there a discount for students?", seed_id="s-2", ordinal=1),
        _candidate("Do you take cheques from abroad?", seed_id="s-3", ordinal=0),
    ]
    for shuffled in (drafts, drafts[::-1]):
        found = list(_gates(rows_at_most=3).admit(shuffled))
        admitted = [outcome.candidate.input for outcome in found if isinstance(outcome, Admitted)]
        refused = {outcome.candidate.input: outcome.rejected.reason for outcome in found if isinstance(outcome, Refused)}
        assert admitted == [drafts[0].input, drafts[4].input, drafts[1].input]
        assert refused == {drafts[2].input: "duplicate", drafts[3].input: "row_cap"}
    assert _verdicts(_gates(rows_at_most=0), drafts[0]) == [("row_cap", "")]
    assert len([v for v in _verdicts(_gates(), *drafts) if v[0] == ""]) == 4, "without a bound"


def test_a_bound_may_be_told_round_by_round() -> None:
    settings = AugmentationConfig(rows_at_most=(7, 2))
    assert [settings.of_round(n).rows_at_most for n in range(3)] == [7, 2, 0]
    assert (
        AugmentationConfig(rows_at_most=5).of_round(3).rows_at_most == 5 and AugmentationConfig().of_round(0).rows_at_most is None
    )
