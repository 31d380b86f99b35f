"""Which rows are computed when and together: the promises of runtime/training/batching.py and runtime/models/tokens.py."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm_ray.config.schedule import (
    MIN_EPOCHS,
    MIN_UPDATES,
    SEED_EPOCHS,
    auto_updates,
    early_update,
    fixed_updates,
    total_updates,
    updates_per_epoch,
)
from llm2llm_ray.runtime.models.tokens import Row, encode, encode_prompt, encode_rows
from llm2llm_ray.runtime.training import batching


class Words:
    """A tokenizer of words: 1 begins a text, 2 ends one; each word is its length plus 10."""

    eos_token_id: int | None = 2

    def __init__(self, *, closes: bool = False) -> None:
        self.closes = closes

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        ids = [10 + len(word) for word in text.split()]
        if add_special_tokens:
            ids = [1, *ids, *([2] if self.closes else [])]
        return {"input_ids": ids}


def test_a_row_is_the_prompt_then_the_completion_then_the_end() -> None:
    ids, n_prompt = encode(Words(), "what is it", " a fee")
    assert (ids, n_prompt) == ([1, 14, 12, 12, 11, 13, 2], 4)
    assert ids[:n_prompt] == encode_prompt(Words(), "what is it")


def test_a_prompt_never_ends_in_the_end() -> None:
    assert encode_prompt(Words(closes=True), "what is it") == encode_prompt(Words(), "what is it") == [1, 14, 12, 12]


def test_a_tokenizer_without_an_end_is_refused() -> None:
    endless = Words()
    endless.eos_token_id = None
    with pytest.raises(ValueError, match="end-of-text"):
        encode(endless, "a", "b")


def test_rows_that_are_too_long_are_counted_not_cut() -> None:
    rows, skipped = encode_rows(Words(), [("a b", "c"), ("a b c d", "e"), ("a", "b")], 5)
    assert [len(row.ids) for row in rows] == [5, 4]
    assert skipped == 1


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5), st.integers(1, 3))
def test_every_epoch_has_every_row_once(num_rows: int, size: int, seed: int, epochs: int) -> None:
    per_epoch = updates_per_epoch(num_rows, size)
    stream = batching.global_batches(num_rows, size, seed)
    for _ in range(epochs):
        epoch = list(itertools.islice(stream, per_epoch))
        assert sorted(itertools.chain(*epoch)) == list(range(num_rows))
        assert all(len(batch) == size for batch in epoch[:-1])


def test_batches_are_a_function_of_the_seed_and_differ_between_epochs() -> None:
    first = list(itertools.islice(batching.global_batches(40, 8, 7), 10))
    assert first == list(itertools.islice(batching.global_batches(40, 8, 7), 10))
    assert first[:5] != first[5:]
    assert first != list(itertools.islice(batching.global_batches(40, 8, 8), 10))


def test_no_rows_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="no rows"):
        next(batching.global_batches(0, 8, 0))


@given(st.lists(st.integers(2, 300), min_size=1, max_size=70), st.integers(1, 5), st.integers(1, 9))
def test_an_update_is_cut_evenly_and_nothing_is_lost(lengths: list[int], workers: int, micro: int) -> None:
    passes = batching.split(range(len(lengths)), lengths, workers=workers, micro=micro)
    assert sorted(row for ranks in passes for rows in ranks for row in rows) == list(range(len(lengths)))
    assert all(len(ranks) == workers for ranks in passes)
    sizes = [len(rows) for ranks in passes for rows in ranks]
    assert max(sizes) <= micro
    assert max(sizes) - min(sizes) <= 1
    assert len(passes) == -(-len(lengths) // (workers * micro))  # no pass more than needed
    flat = [lengths[row] for ranks in passes for rows in ranks for row in rows]
    assert flat == sorted(flat, reverse=True)  # the longest first: memory runs out at once or not at all


@given(st.lists(st.integers(2, 300), min_size=1, max_size=70), st.integers(1, 5), st.integers(1, 9))
def test_packed_rows_are_dealt_evenly_and_nothing_is_lost(lengths: list[int], workers: int, micro: int) -> None:
    passes = batching.deal(range(len(lengths)), lengths, workers=workers, micro=micro)
    assert sorted(row for ranks in passes for rows in ranks for row in rows) == list(range(len(lengths)))
    assert all(len(ranks) == workers for ranks in passes)
    assert max(len(rows) for ranks in passes for rows in ranks) <= micro
    assert len(passes) == -(-len(lengths) // (workers * micro))  # no pass more than needed
    tokens = [sum(lengths[row] for row in rows) for ranks in passes for rows in ranks]
    assert tokens == sorted(tokens, reverse=True)  # the heaviest first: memory runs out at once or not at all


def test_ranks_get_as_many_tokens_as_each_other() -> None:
    lengths = [61, 44, 40, 33, 30, 25, 24, 22, 21, 20, 19, 18, 17, 15, 12, 9]
    for workers, micro in ((2, 8), (4, 4), (2, 4)):
        tokens = [
            sum(lengths[row] for row in rows)
            for ranks in batching.deal(range(16), lengths, workers=workers, micro=micro)
            for rows in ranks
        ]
        assert max(tokens) <= 1.1 * sum(lengths) / len(tokens)
    padded = batching.split(range(16), lengths, workers=2, micro=8)
    assert sum(lengths[row] for row in padded[0][0]) > 1.5 * sum(lengths[row] for row in padded[0][1])  # why it is not used


@pytest.mark.parametrize("cut", [batching.split, batching.deal])
@pytest.mark.parametrize("join", [batching.collate, batching.pack])
def test_a_rank_without_rows_computes_a_dummy(cut: Any, join: Any) -> None:
    assert cut([0], [5], workers=2, micro=4) == [[[0], []]]
    dummy = join([], 9)
    assert dummy.inputs["input_ids"].tolist() == [[9, 9]]
    logits = torch.randn(1, len(dummy.inputs["logits_to_keep"]), 20, requires_grad=True)
    loss = batching.loss_sum(logits, dummy.labels, dummy.weights)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_labels_stand_where_they_are_predicted_and_prompts_and_padding_have_none() -> None:
    batch = batching.collate([Row((1, 5, 6, 7, 2), 3), Row((1, 8, 2), 1)], pad_id=0)
    no = batching.IGNORED
    found = {name: value.tolist() for name, value in batch.inputs.items() if isinstance(value, torch.Tensor)}
    assert found == {
        "input_ids": [[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]],
        "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]],
        "logits_to_keep": [0, 1, 2, 3],
    }
    assert batch.labels.tolist() == [[no, no, 7, 2], [8, 2, no, no]]


def test_packed_rows_lie_end_to_end_and_only_completions_are_scored() -> None:
    batch = batching.pack([Row((1, 5, 6, 7, 2), 3), Row((1, 8, 2), 1)], pad_id=0)
    found = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in batch.inputs.items()}
    assert found == {
        "input_ids": [[1, 5, 6, 7, 2, 1, 8, 2]],
        "position_ids": [[0, 1, 2, 3, 4, 0, 1, 2]],
        "cu_seq_lens_q": [0, 5, 8],
        "cu_seq_lens_k": [0, 5, 8],
        "max_length_q": 5,
        "max_length_k": 5,
        "logits_to_keep": [2, 3, 5, 6],
    }
    assert batch.labels.tolist() == [[7, 2, 8, 2]]


@pytest.mark.parametrize("join", [batching.collate, batching.pack])
def test_weights_stand_beside_labels_and_where_all_are_1_there_are_none(join: Any) -> None:
    rows = [Row((1, 5, 6, 7, 2), 3), Row((1, 8, 2), 1, weight=0.5)]
    batch = join(rows, 0)
    scored = batch.labels != batching.IGNORED
    assert batch.weights[scored].tolist() == [1.0, 1.0, 0.5, 0.5]
    assert join(rows[:1], 0).weights is None, "the sum of the losses is computed as without weights, bit by bit"


@pytest.mark.parametrize(("cut", "join"), [(batching.split, batching.collate), (batching.deal, batching.pack)])
@settings(deadline=None, max_examples=25)
@given(
    shape=st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1.0, 1.0, 0.25, 3.0])), min_size=1, max_size=9
    ),
    workers=st.integers(1, 3),
    micro=st.integers(1, 4),
)
def test_the_loss_of_an_update_does_not_depend_on_how_it_is_cut(
    cut: Any, join: Any, shape: list[tuple[int, int, float]], workers: int, micro: int
) -> None:
    rows = [Row(tuple((3 * n + i) % 11 for i in range(a + b)), a, weight=weight) for n, (a, b, weight) in enumerate(shape)]
    table = torch.linspace(-2, 2, 11 * 11).reshape(11, 11).sin()  # logits of the next token given this one
    lengths = [len(row.ids) for row in rows]
    total = torch.zeros(())
    for ranks in cut(range(len(rows)), lengths, workers=workers, micro=micro):
        for group in ranks:
            batch = join([rows[i] for i in group], 0)
            total += batching.loss_sum(
                table[batch.inputs["input_ids"]][:, batch.inputs["logits_to_keep"]], batch.labels, batch.weights
            )
    scores = table.log_softmax(-1)
    expected = -sum(row.weight * scores[row.ids[i - 1], row.ids[i]] for row in rows for i in range(row.n_prompt, len(row.ids)))
    assert total.item() == pytest.approx(float(expected), rel=1e-4)


def test_updates_override_epochs_and_part_epochs_count() -> None:
    assert total_updates(21, 8, 2, None) == 6
    assert total_updates(21, 8, 2.5, None) == 8
    assert total_updates(21, 8, 0.01, None) == 1
    assert total_updates(21, 8, 2, 40) == 40


def test_automatic_updates_stay_what_the_seeds_need_until_the_rows_outgrow_them() -> None:
    assert auto_updates(8, 8, 8) == MIN_UPDATES
    seeds = 8 * MIN_UPDATES  # in batches of 8 more than the least
    enough = SEED_EPOCHS * MIN_UPDATES
    fitting = 8 * enough // MIN_EPOCHS
    assert {auto_updates(seeds, rows, 8) for rows in (seeds, fitting)} == {enough}
    assert auto_updates(seeds, fitting + 1, 8) == enough + 1
    assert auto_updates(seeds + 1, seeds + 1, 8) > enough


def test_a_snapshot_is_of_a_whole_update() -> None:
    assert [early_update(total, 0.3) for total in (60, 61, 10, 3, 1)] == [18, 19, 3, 1, 1]


@pytest.mark.parametrize(("said", "meant"), [(None, None), (7, 7), ("auto", auto_updates(21, 60, 8))])
def test_what_a_setting_of_updates_means(said: Any, meant: int | None) -> None:
    assert fixed_updates(said, seeds=21, rows=60, global_batch_size=8) == meant


def rate(update: int, total: int, schedule: str) -> float:
    return batching.learning_rate(update, total, peak=1.0, warmup_ratio=0.1, schedule=schedule)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_then_falls_and_no_update_is_wasted(schedule: str) -> None:
    rates = [rate(update, 40, schedule) for update in range(40)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b > 0 for a, b in itertools.pairwise(rates[4:]))
    assert rate(0, 1, schedule) == 1.0
    if schedule != "constant":
        assert rates[-1] < 0.05
        assert rates[22] == pytest.approx(0.5)  # half way down
