"""A request's identity: the same question is the same request, another place in the run is another sample."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.asking.request import Request, merged_system, sampling_seed
from llm2llm_ray.types import Message, Prompt

ids = st.text(min_size=1)
counts = st.integers(0, 10**6)


def test_the_prompt_alone_makes_the_prompts_fingerprint() -> None:
    request = Request(row_id="s-1", prompt=Prompt(text="Request: a"), sampling={"temperature": 0.0})
    elsewhere = replace(request, row_id="s-2", sampling={"temperature": 1.0}, ordinal=3, attempt=1)
    assert elsewhere.prompt_sha == request.prompt_sha


def test_text_stop_and_messages_are_all_of_the_prompt() -> None:
    prompts = [
        Prompt(text="a"),
        Prompt(text="a", stop=("\n",)),
        Prompt(messages=(Message(role="user", content="a"),)),
        Prompt(messages=(Message(role="system", content="a"),)),
        Prompt(messages=(Message(role="user", content="a"), Message(role="user", content=""))),
    ]
    assert len({Request(row_id="s", prompt=prompt, sampling={}).prompt_sha for prompt in prompts}) == len(prompts)


@given(st.integers(), ids, counts, counts)
def test_seeds_fit_every_service(run_seed: int, row_id: str, ordinal: int, attempt: int) -> None:
    assert 0 <= sampling_seed(run_seed, row_id, ordinal, attempt) < 2**31


@given(st.tuples(counts, ids, counts, counts), st.tuples(counts, ids, counts, counts))
def test_seeds_differ_where_the_place_differs(one: tuple[int, str, int, int], other: tuple[int, str, int, int]) -> None:
    assert (sampling_seed(*one) == sampling_seed(*other)) == (one == other)


def test_seeds_stay_what_stored_replies_were_asked_with() -> None:
    """A change here would ask every stored request of every run again."""
    assert sampling_seed(0, "s-17", 0, 0) == 1355301299


def test_a_system_message_is_put_before_the_first_user_message() -> None:
    said = {role: Message(role=role, content=role[0]) for role in ("system", "user", "assistant")}
    system, user, assistant = said["system"], said["user"], said["assistant"]
    both = Message(role="user", content="s\n\nu")

    def merged(*messages: Message) -> tuple[Message, ...]:
        return merged_system(Prompt(messages=messages)).messages

    assert merged(system, user) == (both,)
    assert merged(system, assistant, user, user) == (assistant, both, user)
    assert merged(system, system, user) == (Message(role="user", content="s\n\ns\n\nu"),)
    assert merged(system) == (Message(role="user", content="s"),)
    assert merged(user, assistant) == (user, assistant)
    assert merged_system(Prompt(text="s", stop=("x",))) == Prompt(text="s", stop=("x",))
    assert merged_system(Prompt(messages=(system, user), stop=("x",))).stop == ("x",)
