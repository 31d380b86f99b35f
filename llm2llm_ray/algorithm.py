"""Algorithm 1 of LLM2LLM (Lee et al. 2024, arXiv 2403.15042) and nothing else: no Ray, no I/O, no resume branch.

The ports resume by themselves (their stages are recorded), so running this again continues where it stopped."""

from __future__ import annotations

from collections.abc import Iterator

from llm2llm_ray.protocols import Augmenter, ErrorSource, Trainer, Versions, WorthAsking, always
from llm2llm_ray.types import Iteration


def llm2llm(
    *,
    trainer: Trainer,
    errors: ErrorSource,
    augmenter: Augmenter,
    versions: Versions,
    iterations: int,
    continue_training: bool = False,
    worth_asking: WorthAsking = always,
) -> Iterator[Iteration]:
    """Grow D^0 with teacher examples aimed at what the student gets wrong; yields after each iteration."""
    dataset = versions.seed()  # D^0
    student, spent = None, False
    for i in range(iterations):
        # M^i, from M^0 each time: the paper's ablation found training on from M^{i-1} worse.
        student = trainer.train(dataset, student if continue_training else None)
        graded = errors.stream(student, dataset)  # E^i, flowing
        if i == iterations - 1 or spent or not worth_asking(student):  # the last iteration does not generate
            yield Iteration(index=i, dataset=dataset, student=student, round=versions.close(dataset, graded), grown=None)
            return
        augmented = augmenter.augment(graded.wrong())  # A^i from W^i, while E^i still flows
        grown, outcome = versions.extend(dataset, augmented)  # D^{i+1} = D^i + A^i
        yield Iteration(index=i, dataset=dataset, student=student, round=outcome, grown=grown)
        if outcome.nothing_wrong:
            return
        spent = outcome.stopped_by_budget  # what was paid for is still trained on
        dataset = grown
