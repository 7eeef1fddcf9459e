"""Canonical requests → Anthropic's: golden files, what a model cannot, and that nothing unknown gets through."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic_client import request_to_chat
from gateway.dialects.anthropic_messages import request_from_chat
from gateway.dialects.capabilities import Capabilities
from gateway.errors import InvalidRequest
from tests.support import golden
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ANY = Capabilities()
CASES = golden.cases("anthropic_messages", "request_from_chat")
# MessageCreateParams of the SDK, both versions; anything else is a 400.
KNOWN = {
    "model", "max_tokens", "messages", "system", "stop_sequences", "stream", "temperature", "top_p", "top_k", "tools",
    "tool_choice", "thinking", "output_config", "cache_control", "metadata", "service_tier",
}  # fmt: skip


def translated(caps: Capabilities = ANY, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    return request_from_chat({"messages": [USER], **fields}, "claude-x", caps=caps)


def caps_of(document: Any) -> Capabilities:
    flags = document["caps"]
    return Capabilities(**{**flags, "efforts": tuple(flags.get("efforts", Capabilities().efforts))})


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    document = CASES[case]
    before = copy.deepcopy(document["input"])
    request, dropped = request_from_chat(document["input"], "claude-x", caps=caps_of(document))
    assert {"request": request, "dropped": dropped} == document["expected"]
    assert document["input"] == before, "the parsed body belongs to the whole chain"


def test_a_recorded_request_comes_back_as_it_was(test_data: Recordings) -> None:
    """What Anthropic's own clients sent, through the canonical form and back; only how it is written may differ."""
    for name in test_data.names("anthropic"):
        for each in test_data.interactions(name):
            sent = each.request_json
            if "max_tokens" not in sent or "server" in name:
                continue
            chat, dropped = request_to_chat(sent)
            caps = Capabilities(mid_system=True, adaptive_thinking="effort" in str(sent), efforts=("low", "xhigh"))
            back, lost = request_from_chat(chat, sent["model"], caps=caps)
            assert dropped == lost == []
            assert _plain(back) == _plain(sent), name


def _plain(request: dict[str, Any]) -> dict[str, Any]:
    """The request without what may be written in two ways."""

    def blocks(content: Any) -> list[dict[str, Any]]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return [
            {name: blocks(value) if name == "content" else value for name, value in block.items() if value is not False}
            for block in content or []
        ]

    plain = {name: value for name, value in request.items() if value is not False}
    plain["messages"] = [message | {"content": blocks(message["content"])} for message in plain["messages"]]
    plain["system"] = blocks(plain.get("system"))
    if "effort" in plain.get("output_config", {}):
        plain.pop("thinking", None)  # to OpenAI an effort is a wish for thinking
    return plain


words = st.text("abc \n é漢", min_size=1, max_size=6).filter(str.strip)
text = st.builds(
    lambda words, mark: {"type": "text", "text": words, **({"cache_control": {"type": "ephemeral"}} if mark else {})},
    words, st.booleans(),
)  # fmt: skip
thinking = st.builds(lambda seal: {"type": "thinking", "thinking": seal, "signature": "s" + seal}, words)
redacted = st.builds(lambda seal: {"type": "redacted_thinking", "data": "d" + seal}, words)
inputs = st.dictionaries(words, words | st.integers() | st.booleans(), max_size=2)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A question, then answers with what they ask for; the order of blocks is the one a canonical message has."""
    made = [{"role": "user", "content": draw(st.lists(text, min_size=1, max_size=2))}]
    for turn in range(draw(st.integers(0, 3))):
        calls = [
            {"type": "tool_use", "id": f"t{turn}_{index}", "name": draw(words), "input": each}
            for index, each in enumerate(draw(st.lists(inputs, max_size=2)))
        ]
        thoughts, later = draw(st.lists(thinking, max_size=2)), draw(st.lists(redacted, max_size=1))
        texts = draw(st.lists(text, min_size=0 if calls else 1, max_size=2))
        made.append({"role": "assistant", "content": [*thoughts, *texts, *(later if calls else []), *calls]})
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": [draw(text)],
             **draw(st.sampled_from([{}, {"is_error": True}]))}
            for call in calls
        ]  # fmt: skip
        made.append(
            {"role": "user", "content": [*results, *draw(st.lists(text, min_size=0 if calls else 1, max_size=2))]}
        )
        if draw(st.booleans()):
            made.append({"role": "system", "content": [draw(text)]})
            made.append({"role": "user", "content": [draw(text)]})
    return made


@given(turns(), st.lists(text, max_size=2), st.lists(words, max_size=2))
def test_what_both_can_say_survives_the_canonical_form(
    messages: list[dict[str, Any]], system: list[dict[str, Any]], stops: list[str]
) -> None:
    sent = {"model": "m", "max_tokens": 5, "messages": messages, "temperature": 0.5, "top_k": 3}
    sent |= {"system": system} if system else {}
    sent |= {"stop_sequences": stops} if stops else {}
    chat, dropped = request_to_chat(sent)
    back, lost = request_from_chat(chat, "m", caps=Capabilities(mid_system=True))
    assert dropped == lost == []
    assert _plain(back) == _plain(sent)


@pytest.mark.parametrize(
    ("given_fields", "most", "expected"),
    [
        ({}, None, 4096), ({}, 64_000, 64_000), ({"max_tokens": 7}, None, 7), ({"max_completion_tokens": 0}, None, 0),
        ({"max_tokens": 9, "max_completion_tokens": 8}, None, 8), ({"max_tokens": 99}, 50, 50),
        ({"reasoning_effort": "low"}, None, 4096 + 2048),
    ],
)  # fmt: skip
def test_max_tokens_is_always_said(given_fields: Any, most: int | None, expected: int) -> None:
    request, dropped = translated(Capabilities(max_output=most), **given_fields)
    assert request["max_tokens"] == expected
    assert dropped == (["max_tokens"] if most == 50 else [])


@pytest.mark.parametrize(
    ("fields", "expected", "lost"),
    [
        ({"temperature": 0.3}, {"temperature": 0.3}, []),
        ({"temperature": 1.7}, {"temperature": 1}, ["temperature"]),
        ({"temperature": 1, "top_p": 1}, {"temperature": 1}, []),
        ({"temperature": 1, "top_p": 0.5}, {"temperature": 1}, ["top_p"]),
        ({"top_p": 0.5, "top_k": 3}, {"top_p": 0.5, "top_k": 3}, []),
    ],
)
def test_sampling(fields: Any, expected: Any, lost: list[str]) -> None:
    request, dropped = translated(**fields)
    assert {name: request[name] for name in ("temperature", "top_p", "top_k") if name in request} == expected
    assert dropped == lost


def test_sampling_is_left_out_for_the_later_version_and_models_that_refuse_it() -> None:
    chat = {"messages": [USER], "temperature": 0.5, "top_p": 1}
    for caps, version in ((Capabilities(sampling=False), "2023-06-01"), (Capabilities(), "2026-10-21")):
        request, dropped = request_from_chat(chat, "m", caps=caps, version=version)
        assert "temperature" not in request
        assert "top_p" not in request
        assert dropped == ["temperature"]


def test_tools_that_run_one_at_a_time_need_a_choice() -> None:
    assert translated(tools=[TOOL], parallel_tool_calls=False)[0]["tool_choice"] == {
        "type": "auto",
        "disable_parallel_tool_use": True,
    }
    assert translated(tools=[TOOL], parallel_tool_calls=False, tool_choice="none")[0]["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in translated(parallel_tool_calls=False)[0]
    assert translated(tool_choice="required")[1] == ["tool_choice"]


def test_names_that_identify_a_person_are_not_sent() -> None:
    assert translated(user="ann@example.org")[1] == ["user"]
    assert translated(user="a", safety_identifier="b")[0]["metadata"] == {"user_id": "b"}
    request, dropped = translated(metadata={"user_id": "c", "team": "x"})
    assert (request["metadata"], dropped) == ({"user_id": "c"}, ["metadata.team"])


@given(
    st.dictionaries(
        st.sampled_from(["n", "seed", "logprobs", "logit_bias", "modalities", "prediction", "audio", "verbosity",
                         "store", "web_search_options", "min_p", "repetition_penalty", "functions", "x_unknown",
                         "moderation"]),
        st.just(2) | st.just({"a": 1}) | st.just("x"),
    ),
)  # fmt: skip
def test_nothing_unknown_reaches_anthropic_and_nothing_is_lost_in_silence(fields: dict[str, Any]) -> None:
    request, dropped = translated(**fields)
    assert set(request) <= KNOWN
    assert set(dropped) == set(fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []}, {"max_tokens": "x"}, {"max_tokens": -1}, {"tools": "x"}, {"tools": [1]}, {"tools": [{}]},
        {"tool_choice": "always"}, {"tool_choice": 1}, {"stop": 1}, {"stop": [1]}, {"response_format": 1},
        {"response_format": {"type": "json_schema"}}, {"reasoning_effort": "hard"}, {"reasoning": {"max_tokens": "x"}},
    ],
)  # fmt: skip
def test_a_wrong_shape_is_the_client_s_fault(wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        translated(**wrong)


@pytest.mark.parametrize("case", CASES)
def test_the_official_schema_knows_every_field(case: str, test_data: Recordings) -> None:
    """The published types of 2026-10-21; sampling, which they lack, is of 2023-06-01."""
    schemas = json.loads((test_data.folder.parent / "specs" / "anthropic.sdk-types.schema.json").read_bytes())[
        "schemas"
    ]
    known = set(schemas["MessageCreateParamsNonStreaming"]["properties"]) | {"temperature", "top_p", "top_k"}
    assert set(CASES[case]["expected"]["request"]) <= known
