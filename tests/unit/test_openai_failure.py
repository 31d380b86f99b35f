"""What a service's error body says, in every form we know of, as one short line without a key in it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm_ray.asking.openai_failure import said
from llm2llm_ray.asking.openai_remedy import refused_request
from llm2llm_ray.asking.redaction import one_line, without_key
from llm2llm_ray.config.teacher import RequestConfig, TeacherConfig
from llm2llm_ray.types import Message, Prompt

KEY = "sk-abcd/EFGH+ijkl=0123456789"
PAGE = """<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>h1 {color: red}</style></head>
<body><!-- cf-ray 1 --><h1>502 Bad Gateway</h1><p>The origin &amp; its cache are down.</p><script>alert("x")</script></body>"""


@pytest.mark.parametrize(
    ("body", "reason", "code"),
    [
        # OpenAI; FastAPI; vLLM of old and of today; Gemini in a list; AWS; RFC 7807; plain lists and texts.
        ({"error": {"message": "Bad value", "param": "temperature", "code": "invalid"}}, "temperature: Bad value", "invalid"),
        ({"error": {"message": "temperature is bad", "param": "temperature"}}, "temperature is bad", ""),
        (
            {
                "detail": [
                    {"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"},
                    {"loc": ["body", "a", 0], "msg": "No"},
                ]
            },
            "seed: Extra inputs are not permitted; a.0: No",
            "",
        ),
        ({"object": "error", "message": "System role not supported", "code": 400}, "System role not supported", "400"),
        ({"error": {"message": "no", "code": 400}}, "no", "400"),
        ([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID"}}], "API key not valid.", "400"),
        ({"Message": "Signature expired"}, "Signature expired", ""),
        ({"title": "Conflict", "detail": "Two at once", "status": 409}, "Conflict; Two at once", ""),
        ({"detail": "Not Found"}, "Not Found", ""),
        ({"error": "model 'x' not found"}, "model 'x' not found", ""),
        ({"errors": [{"message": "a"}, {"message": "b"}, {"message": "a"}]}, "a; b", ""),
        # A gateway that hands on what its upstream said, as text.
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": '{"detail": "seed is not allowed"}'},
                }
            },
            "Provider returned error; seed is not allowed",
            "400",
        ),
        ({"error": {"message": "", "type": "overloaded"}}, "overloaded", ""),
        ({"status": "FAILED", "n": 3}, '{"status": "FAILED", "n": 3}', ""),
        ({"error": {"message": None}}, '{"error": {"message": null}}', ""),
    ],
)
def test_the_reason_is_found_with_its_field(body: object, reason: str, code: str) -> None:
    assert said(json.dumps(body)) == (reason, code)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("upstream connect error", "upstream connect error"),
        ('{"error": {"mess', '{"error": {"mess'),
        ("", "no reason given"),
        ("{}", "no reason given"),
        ("null", "no reason given"),
        (PAGE, "502 Bad Gateway 502 Bad Gateway The origin & its cache are down."),
        ("a < b and b > a", "a < b and b > a"),
    ],
)
def test_plain_text_stays_and_a_page_becomes_its_words(body: str, reason: str) -> None:
    assert said(body)[0] == reason


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_no_body_is_too_strange(body: object) -> None:
    assert said(json.dumps(body))[0]
    assert said("[" * 5000)[0] and said(json.dumps({"error": json.dumps({"error": json.dumps(body)})}))[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Incorrect API key {KEY} given", "Incorrect API key [key] given"),
        (f"GET /v1?key={quote(KEY, safe='')}&a=1", "GET /v1?key=[key]&a=1"),
        ("key sk-abcd/EFGH+ij... is bad", "key [key]... is bad"),
        ("ends in 123456789", "ends in [key]"),
        ("SK-ABCD/EFGH+IJKL=0123456789", "[key]"),
        ("Incorrect API key provided: sk-a****************6789. See", "Incorrect API key provided: [key]. See"),
        ("Authorization: Bearer eyJhbGciOi.J9.x was sent", "Authorization: Bearer [key] was sent"),
        ("our upstream key sk-proj-0000000000000000 expired", "our upstream key [key] expired"),
        ("rated **** by all, 4*** too", "rated **** by all, 4*** too"),
        ("the model abcd has 0123 layers", "the model abcd has 0123 layers"),
        ("İstanbul " + KEY, "İstanbul [key]"),
    ],
)
def test_no_key_is_shown(text: str, shown: str) -> None:
    assert without_key(text, KEY) == shown


def test_a_word_set_for_a_service_that_wants_no_key_hides_nothing_else() -> None:
    assert without_key("EMPTY is no key; the EMPTYING model", "EMPTY") == "[key] is no key; the EMPTYING model"
    assert without_key("max_tokens is x", "x") == "max_tokens is [key]"


@given(st.text(max_size=30), st.integers(0, len(KEY) - 8), st.integers(8, len(KEY)), st.text(max_size=30))
def test_no_eight_characters_of_a_key_get_through(before: str, start: int, length: int, after: str) -> None:
    left = one_line(before + KEY[start : start + length] + after, KEY)
    assert not any(KEY[n : n + 8] in left for n in range(len(KEY) - 7))


def test_a_line_is_short_shows_both_ends_and_nothing_a_terminal_obeys() -> None:
    line = one_line("begin \x1b[2J\n\u202e" + "x " * 2000 + KEY + " the end", KEY)
    assert line.startswith("begin \\u001b[2J \\u202ex x x") and line.endswith("[key] the end") and " … " in line
    assert len(line) == 420 + 3 + 120 and line.isprintable()
    assert one_line("y" * 540, KEY) == "y" * 540


CHAT = Prompt(messages=(Message(role="system", content="a"), Message(role="user", content="b")), stop=("x",))
USER = Prompt(messages=(Message(role="user", content="b"),))


@pytest.mark.parametrize(
    ("message", "prompt", "remedy"),
    [
        ("System role not supported", CHAT, "--set teacher.system_message=merge"),
        ("role 'system' is not one of user, assistant", CHAT, "--set teacher.system_message=merge"),
        ("Developer instruction is not enabled for models/gemma-3", CHAT, "--set teacher.system_message=merge"),
        ("Conversation roles must alternate user/assistant", CHAT, "--set teacher.system_message=merge"),
        ("System role not supported", USER, ""),
        ("our system is down", CHAT, ""),
        ("temperature must be 1", CHAT, "--set 'teacher.request.drop=[temperature]' leaves it out; or set teacher.temperature"),
        ("topP: unknown name", CHAT, "--set 'teacher.request.drop=[top_p]' leaves it out"),
        ("Unrecognized request argument supplied: seed", CHAT, "--set 'teacher.request.drop=[seed]' leaves it out"),
        ("only one of temperature and top_p", CHAT, "--set 'teacher.request.drop=[top_p]' leaves top_p out"),
        ("Unsupported parameter: 'stop'", CHAT, "--set 'teacher.request.drop=[stop]' leaves it out"),
        ("Unsupported parameter: 'stop'", USER, ""),
        ("This model's maximum context length is 4096 tokens; max_tokens is 5000", CHAT, "change teacher.max_tokens, or shorten"),
        ("reasoning is not supported", CHAT, "take reasoning out of teacher.request.add"),
        ("we do not stop here", CHAT, ""),
        ("unseeded", CHAT, ""),
    ],
)
def test_a_remedy_is_named_where_the_words_point_to_it(message: str, prompt: Prompt, remedy: str) -> None:
    config = TeacherConfig(model="m", request=RequestConfig(add={"reasoning": {"effort": "low"}}))
    told = refused_request(message, config, prompt)
    assert told.startswith(remedy) and bool(told) == bool(remedy)


def test_a_remedy_keeps_what_is_dropped_already() -> None:
    config = TeacherConfig(model="m", request=RequestConfig(drop=("temperature",)))
    assert "drop=[seed, temperature]" in refused_request("seed is not allowed", config, CHAT)
    assert refused_request("temperature is not allowed", config, CHAT) == ""
