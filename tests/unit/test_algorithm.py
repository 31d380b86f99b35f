"""The real loop over small ports of the tests' own: what Algorithm 1 promises, whatever stands behind the ports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.algorithm import llm2llm
from llm2llm_ray.errors import StreamConsumed
from llm2llm_ray.protocols import AugmentedStream, GradedStream, WorthAsking, WrongStream, always
from llm2llm_ray.types import DatasetVersion, Iteration, Round, Student

SEEDS = ("s-0", "s-1", "s-2", "s-3")


@dataclass
class World:
    """Four seeds, a student that gets `wrong[i]` wrong in iteration i, and a log of what happened in which order."""

    wrong: Sequence[frozenset[str]]
    budget: int | None = None
    happened: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    drained: dict[str, list[tuple[str, bool, str | None]]] = field(default_factory=dict)
    """Folder -> (row, whether it was right, what was written for it)."""
    streams: list[Graded] = field(default_factory=list)

    def asked(self, iteration: int) -> set[str]:
        return {name for what, name in self.happened if what == f"asked {iteration}"}

    def trained(self) -> list[str]:
        return [name for what, name in self.happened if what == "trained"]


@dataclass
class Graded:
    """Really lazy: an answer is made when somebody takes it, and to flow twice is an error."""

    world: World
    iteration: int
    consumed: bool = False

    @property
    def inputs(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def drain(self, folder: str) -> None:
        self.world.drained[folder] = [(seed, correct, None) for seed, correct in self.flow()]

    def flow(self) -> Iterator[tuple[str, bool]]:
        if self.consumed:
            raise StreamConsumed(f"iteration {self.iteration}")
        self.consumed = True
        return self._flow()

    def _flow(self) -> Iterator[tuple[str, bool]]:
        for seed in SEEDS:
            self.world.happened.append((f"answered {self.iteration}", seed))
            yield seed, seed not in self.world.wrong[self.iteration]

    def wrong(self) -> Wrong:
        return Wrong(self)


@dataclass
class Wrong:
    graded: Graded


@dataclass
class Augmented:
    graded: Graded

    @property
    def iteration(self) -> int:
        return self.graded.iteration

    @property
    def inputs(self) -> dict[str, int]:
        return self.graded.inputs

    def drain(self, folder: str) -> None:
        self.graded.world.drained[folder] = list(self._flow())

    def _flow(self) -> Iterator[tuple[str, bool, str | None]]:
        world, i = self.graded.world, self.graded.iteration
        for seed, correct in self.graded.flow():
            if correct:
                yield seed, True, None
                continue
            spent = sum(what.startswith("asked") for what, _ in world.happened)
            if world.budget is not None and spent >= world.budget:
                yield seed, False, None
                continue
            world.happened.append((f"asked {i}", seed))
            yield seed, False, f"new from {seed} in {i}"


@dataclass
class Trainer:
    world: World

    def train(self, dataset: DatasetVersion, start: Student | None) -> Student:
        self.world.happened.append(("trained", f"{dataset.id} from {start.sha if start else 'base'}"))
        return Student(path="", sha=f"M{dataset.iteration}", iteration=dataset.iteration)


@dataclass
class Errors:
    world: World

    def stream(self, student: Student, dataset: DatasetVersion) -> Graded:
        self.world.streams.append(Graded(self.world, student.iteration))
        return self.world.streams[-1]


class Augmenter:
    def augment(self, wrong: WrongStream) -> Augmented:
        assert isinstance(wrong, Wrong)
        return Augmented(wrong.graded)


@dataclass
class Versions:
    world: World

    def seed(self) -> DatasetVersion:
        return self._version(0, SEEDS)

    def extend(self, dataset: DatasetVersion, augmented: AugmentedStream) -> tuple[DatasetVersion, Round]:
        augmented.drain(f"A{dataset.iteration}")
        drained = self.world.drained[f"A{dataset.iteration}"]
        new = tuple(row for _, _, row in drained if row)
        wrong = sum(not correct for _, correct, _ in drained)
        outcome = Round(evaluated=len(drained), wrong=wrong, accepted=len(new), stopped_by_budget=len(new) < wrong)
        return self._version(dataset.iteration + 1, self.world.rows[dataset.id] + new), outcome

    def close(self, dataset: DatasetVersion, graded: GradedStream) -> Round:
        graded.drain("E")
        drained = self.world.drained["E"]
        return Round(evaluated=len(drained), wrong=sum(not correct for _, correct, _ in drained))

    def _version(self, iteration: int, rows: tuple[str, ...]) -> DatasetVersion:
        self.world.rows[f"D{iteration}"] = rows
        return DatasetVersion(id=f"D{iteration}", iteration=iteration, parent=None, parts=(), num_rows=len(rows))


def loop(
    world: World,
    *,
    iterations: int | None = None,
    continue_training: bool = False,
    versions: Versions | None = None,
    worth_asking: WorthAsking = always,
) -> Iterator[Iteration]:
    return llm2llm(
        trainer=Trainer(world),
        errors=Errors(world),
        augmenter=Augmenter(),
        versions=versions or Versions(world),
        iterations=len(world.wrong) if iterations is None else iterations,
        continue_training=continue_training,
        worth_asking=worth_asking,
    )


def world(*wrong: str, budget: int | None = None) -> World:
    return World([frozenset(names.split()) for names in wrong], budget=budget)


schedules = st.lists(st.frozensets(st.sampled_from(SEEDS)), min_size=1, max_size=5).map(World)


@given(schedules)
def test_only_wrong_rows_reach_the_teacher_and_the_last_iteration_asks_for_nothing(world: World) -> None:
    turns = list(loop(world))
    for turn in turns[:-1]:
        assert world.asked(turn.index) == set(world.wrong[turn.index])
    assert world.asked(len(world.wrong) - 1) == set()


@given(schedules, st.integers(0, 5))
def test_where_asking_is_not_worth_it_nobody_is_asked_and_the_iteration_is_the_last(world: World, at: int) -> None:
    turns = list(loop(world, worth_asking=lambda student: student.iteration < at))
    assert all(world.asked(turn.index) == set() for turn in turns[at:])
    assert (len(turns) <= at + 1 and turns[-1].grown is None) or not world.wrong[turns[-1].index]


@given(schedules)
def test_it_stops_when_nothing_is_wrong_or_after_n_iterations(world: World) -> None:
    turns = list(loop(world))
    perfect = [i for i, wrong in enumerate(world.wrong) if not wrong]
    assert len(turns) == (perfect[0] + 1 if perfect else len(world.wrong))
    assert [turn.index for turn in turns] == list(range(len(turns)))
    assert [turn.round.wrong for turn in turns] == [len(world.wrong[i]) for i in range(len(turns))]


@given(schedules)
def test_each_version_is_the_one_before_and_what_was_written_for_its_errors(world: World) -> None:
    for turn in loop(world):
        before = world.rows[turn.dataset.id]
        assert before[: len(SEEDS)] == SEEDS
        if turn.grown is not None:
            grown = world.rows[turn.grown.id]
            assert grown[: len(before)] == before
            assert set(grown[len(before) :]) == {f"new from {s} in {turn.index}" for s in world.wrong[turn.index]}
    assert turn.index < len(world.wrong) - 1 or turn.grown is None


@given(schedules)
def test_every_stream_flows_exactly_once(world: World) -> None:
    turns = list(loop(world))
    assert [stream.consumed for stream in world.streams] == [True] * len(turns)
    assert sum(what.startswith("answered") for what, _ in world.happened) == len(SEEDS) * len(turns)


def test_the_student_starts_from_base_each_time() -> None:
    told = world("s-1", "s-1 s-2", "s-0")
    list(loop(told))
    assert told.trained() == ["D0 from base", "D1 from base", "D2 from base"]


def test_with_continue_training_it_starts_from_the_student_before() -> None:
    told = world("s-1", "s-1 s-2", "s-0")
    list(loop(told, continue_training=True))
    assert told.trained() == ["D0 from base", "D1 from M0", "D2 from M1"]


def test_a_round_without_an_answer_is_not_one_without_mistakes() -> None:
    class Away(Versions):
        def extend(self, dataset: DatasetVersion, augmented: AugmentedStream) -> tuple[DatasetVersion, Round]:
            grown, outcome = super().extend(dataset, augmented)
            lost = dataset.iteration == 0
            return grown, Round(evaluated=4, wrong=0, errors={"unavailable": 4}) if lost else outcome

    told = world("", "s-1", "s-0")
    turns = list(loop(told, versions=Away(told)))
    assert [turn.index for turn in turns] == [0, 1, 2]


def test_the_teacher_is_asked_while_the_student_is_still_being_evaluated() -> None:
    told = world("s-0 s-1", "")
    list(loop(told))
    first_round = [what for what, _ in told.happened if what in ("answered 0", "asked 0")]
    assert first_round == ["answered 0", "asked 0", "answered 0", "asked 0", "answered 0", "answered 0"]


def test_after_a_used_up_budget_one_more_student_is_trained_on_what_was_paid_for() -> None:
    told = world("s-0 s-1", "s-0 s-1 s-2", "s-0", "s-0", budget=3)
    turns = list(loop(told))
    assert [turn.round.stopped_by_budget for turn in turns] == [False, True, False]
    assert turns[-1].dataset.num_rows == len(SEEDS) + 3 and turns[-1].grown is None


def test_one_iteration_trains_and_evaluates_and_asks_for_nothing() -> None:
    told = world("s-0")
    (turn,) = loop(told)
    assert turn.grown is None and turn.round.wrong == 1
    assert told.asked(0) == set()


def test_a_consumer_sees_an_iteration_before_the_next_student_is_trained() -> None:
    told = world("s-0", "s-0", "s-0")
    turns = loop(told)
    next(turns)
    assert told.trained() == ["D0 from base"]


def test_a_stream_read_twice_ends_the_run_instead_of_counting_twice() -> None:
    class Peeking(Versions):
        def close(self, dataset: DatasetVersion, graded: GradedStream) -> Round:
            graded.drain("peeked")
            return super().close(dataset, graded)

    told = world("s-0")
    turns = llm2llm(trainer=Trainer(told), errors=Errors(told), augmenter=Augmenter(), versions=Peeking(told), iterations=1)
    with pytest.raises(StreamConsumed):
        list(turns)
