"""Which label of a closed set a model in training gives each text: all labels in one pass, which computes a prompt once.

Invariant: a label's log-probability is that of the sequence prompt, label, end-of-text computed alone. A sequence here is the
prompt, padded on the left, and then every label's tokens; a label's tokens see the prompt and themselves, not the other labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

PER_PASS = 25
"""Texts of a pass: with eight labels some 500 positions whose logits are computed."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a model says to one text."""

    log_probs: tuple[float, ...]
    """Of each label with its end-of-text, after the prompt."""
    greedy: int | None
    """The label that greedy decoding writes, word for word and then ends; None where it writes anything else."""

    @property
    def likeliest(self) -> int:
        return max(range(len(self.log_probs)), key=lambda label: self.log_probs[label])


@torch.no_grad()  # type: ignore[untyped-decorator]
def labels_given(model: Any, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> list[Given]:
    """One answer per prompt, in their order. `labels` are token ids with the end-of-text token; the model is in eval mode."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    found: dict[int, Given] = {}
    for start in range(0, len(order), PER_PASS):
        part = order[start : start + PER_PASS]
        found.update(zip(part, _pass(model, [prompts[row] for row in part], labels), strict=True))
    return [found[row] for row in range(len(prompts))]


def _pass(model: Any, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> list[Given]:
    width = max(map(len, prompts))
    asked = [label[:-1] for label in labels]  # nothing is predicted from the end-of-text token
    starts = [width + sum(map(len, asked[:number])) for number in range(len(asked))]
    length = width + sum(map(len, asked))
    ids = torch.zeros((len(prompts), length), dtype=torch.long)
    places = torch.zeros_like(ids)
    # Padding sees itself: a position that sees nothing has no softmax.
    sees = torch.eye(length, dtype=torch.bool).repeat(len(prompts), 1, 1)
    for row, prompt in enumerate(prompts):
        pad, n = width - len(prompt), len(prompt)
        ids[row, pad:width], places[row, pad:width] = torch.tensor(prompt), torch.arange(n)
        sees[row, pad:width, pad:width] = torch.ones((n, n), dtype=torch.bool).tril()
        for start, tokens in zip(starts, asked, strict=True):
            end, m = start + len(tokens), len(tokens)
            ids[row, start:end], places[row, start:end] = torch.tensor(tokens), torch.arange(n, n + m)
            sees[row, start:end, pad:width] = True
            sees[row, start:end, start:end] = torch.ones((m, m), dtype=torch.bool).tril()
    kept = torch.arange(width - 1, length)
    logits = model(
        input_ids=ids, attention_mask=sees[:, None], position_ids=places, use_cache=False, logits_to_keep=kept
    ).logits.float()  # fmt: skip
    largest, scores = logits.argmax(-1), logits.log_softmax(-1)
    sums, exact = [], []
    for start, label in zip(starts, labels, strict=True):
        # The prompt's last position predicts the label's first token, each of its tokens the next.
        columns = torch.tensor([0, *range(start - width + 1, start - width + len(label))])
        tokens = torch.tensor(list(label))
        sums.append(scores[:, columns, tokens].sum(-1))
        exact.append((largest[:, columns] == tokens).all(-1))
    return [
        Given(tuple(log_probs), next((number for number, is_it in enumerate(said) if is_it), None))
        for log_probs, said in zip(torch.stack(sums, 1).tolist(), torch.stack(exact, 1).tolist(), strict=True)
    ]
