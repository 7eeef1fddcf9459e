"""Canonical requests → Converse requests: golden files, what may go wrong, and the service's own model of a request."""

from __future__ import annotations

import copy
import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import bedrock_converse
from gateway.dialects.capabilities import Capabilities
from gateway.errors import InvalidRequest
from tests.support import golden
from tests.support.programs import recorded_data
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}
CASES = golden.cases("bedrock", "request")


def translate(chat: dict[str, Any], **caps: Any) -> tuple[dict[str, Any], list[str]]:
    return bedrock_converse.request_from_chat(chat, "m", caps=Capabilities(**caps))


def request(*messages: Any, **fields: Any) -> dict[str, Any]:
    return translate({"messages": list(messages) or [USER], **fields})[0]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    document = CASES[case]
    before = copy.deepcopy(document["input"])
    made, dropped = translate(document["input"], **document.get("caps", {}))
    assert {"request": made, "dropped": dropped} == document["expected"]
    assert document["input"] == before, "the parsed body belongs to the whole chain"


def validated(made: dict[str, Any]) -> None:
    """Raises where botocore, with the model of the service, would refuse the request before it is sent."""
    validate = pytest.importorskip("botocore.validate", reason="botocore is not installed")
    from botocore.model import ServiceModel

    description = json.loads((recorded_data() / "specs/bedrock-runtime.service-2.json").read_bytes())
    shape = ServiceModel(description).operation_model("Converse").input_shape
    report = validate.ParamValidator().validate({"modelId": "m", **made}, shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("case", CASES)
def test_the_service_s_own_model_takes_it(case: str) -> None:
    validated(CASES[case]["expected"]["request"])


def test_a_schema_keeps_the_order_of_its_keys() -> None:
    document = CASES["json_schema"]["expected"]["request"]["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert list(json.loads(document["schema"])["properties"]) == ["z", "a"]


def test_integers_of_any_size_survive() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f'{{"n": {10**40}}}'}}
    made = request(USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1"})
    assert made["messages"][1]["content"][0]["toolUse"]["input"] == {"n": 10**40}


@given(st.text(min_size=1, max_size=80))
def test_a_tool_s_id_is_one_the_service_takes_and_the_same_on_both_sides(call_id: str) -> None:
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": ""}}
    made = request(USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": call_id})
    use, result = made["messages"][1]["content"][0]["toolUse"], made["messages"][2]["content"][0]["toolResult"]
    assert use["toolUseId"] == result["toolUseId"]
    assert re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", use["toolUseId"])


roles = st.sampled_from(["system", "developer", "user", "assistant"])


@given(st.lists(st.fixed_dictionaries({"role": roles, "content": st.text(max_size=3)}), min_size=1, max_size=8))
def test_turns_alternate_and_no_text_is_lost(messages: list[dict[str, str]]) -> None:
    made = request(*messages)
    turns = [turn["role"] for turn in made["messages"]]
    assert all(one != other for one, other in pairwise(turns))
    texts = [block["text"] for turn in made["messages"] for block in turn["content"]]
    assert texts == [m["content"] for m in messages if m["role"] in ("user", "assistant") and m["content"]]
    hoisted = [block["text"] for block in made.get("system", [])]
    assert hoisted == [m["content"] for m in messages if m["role"] in ("system", "developer") and m["content"]]


@pytest.mark.parametrize(
    ("effort", "caps", "expected"),
    [
        ("high", {}, {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 16384}}}),
        ("minimal", {"adaptive_thinking": True},
         {"additionalModelRequestFields": {"thinking": {"type": "adaptive"}}, "outputConfig": {"effort": "low"}}),
        ("none", {}, {}),
        ("high", {"budget_thinking": False}, {}),
    ],
)  # fmt: skip
def test_reasoning_effort(effort: str, caps: dict[str, Any], expected: dict[str, Any]) -> None:
    made, dropped = translate({"messages": [USER], "reasoning_effort": effort}, **caps)
    del made["messages"]
    assert made == expected
    assert dropped == (["reasoning_effort"] if caps.get("budget_thinking") is False else [])


def test_a_budget_stays_below_the_client_s_limit() -> None:
    chat = {"messages": [USER], "reasoning": {"max_tokens": 4000}, "max_tokens": 3000}
    assert translate(chat)[0]["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 2999
    made, dropped = translate({**chat, "max_tokens": 1024})
    assert "additionalModelRequestFields" not in made and dropped == ["reasoning"]


def test_who_always_thinks_cannot_be_told_not_to() -> None:
    chat = {"messages": [USER], "reasoning_effort": "none"}
    assert translate(chat, always_thinks=True)[1] == ["reasoning_effort"]


def test_a_tool_can_be_forced_where_the_model_allows_it() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    named = {"type": "function", "function": {"name": "f"}}
    for choice, expected in ((named, {"tool": {"name": "f"}}), ("required", {"any": {}}), ("auto", {"auto": {}})):
        chat = {"messages": [USER], "tools": tools, "tool_choice": choice}
        assert translate(chat)[0]["toolConfig"]["toolChoice"] == expected
        if choice != "auto":
            made, dropped = translate(chat, forced_tools=False)
            assert "toolChoice" not in made["toolConfig"] and dropped == ["tool_choice"]
    assert "toolConfig" not in translate({"messages": [USER], "tools": tools, "tool_choice": "none"})[0]


def refused(match: str, *messages: Any, **fields: Any) -> Any:
    return pytest.param({"messages": list(messages) or [USER], **fields}, match, id=match)


def calling(**function: Any) -> Any:
    return {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("chat", "match"),
    [
        pytest.param({}, "^messages: must be a list", id="none"),
        refused(r"^messages\[0\]\.role: must be one of", {"role": "robot", "content": "x"}),
        refused(r"^messages\[0\]\.role", "x"),
        refused(r"^messages\[0\]\.content: must be a string", {"role": "user", "content": {"a": 1}}),
        refused(r"a system message holds text only", {"role": "system", "content": [
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}),
        refused(r"tool_calls: must be a list", {"role": "assistant", "tool_calls": "x"}),
        refused(r"tool_calls\[0\]\.function\.name: must be a string", calling()),
        refused(r"arguments: is not valid JSON", calling(name="f", arguments="{")),
        refused(r"arguments: must be a JSON object", calling(name="f", arguments="[]")),
        refused(r"the id of a tool call must be a string", {"role": "tool", "content": "x"}),
        refused(r"reasoning_effort: must be one of none, minimal", reasoning_effort="extreme"),
        refused(r"json_schema\.schema: must be an object", response_format={"type": "json_schema"}),
        refused(r"^tools: must be a list", tools="x"),
        refused(r"^tools\[0\]: must be an object", tools=["x"]),
        refused(r"^tools\[0\]\.function\.name", tools=[{"type": "function"}]),
    ],
)  # fmt: skip
def test_what_cannot_be_understood(chat: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        translate(chat)


def test_a_prefill_is_refused_where_the_model_continues_nothing() -> None:
    chat = {"messages": [USER, {"role": "assistant", "content": "Once"}]}
    assert translate(chat)[0]["messages"][-1] == {"role": "assistant", "content": [{"text": "Once"}]}
    with pytest.raises(InvalidRequest, match="continues no message"):
        translate(chat, prefill=False)


def test_a_refusal_is_what_the_assistant_said() -> None:
    made = request(USER, {"role": "assistant", "content": None, "refusal": "No."}, USER)
    assert made["messages"][1]["content"] == [{"text": "No."}]


def test_the_recorded_conversation_with_tools_is_made_again(test_data: Recordings) -> None:
    recorded = test_data.interactions("bedrock-converse-stream-tool-call")[1].request_json
    assistant = recorded["messages"][1]["content"]
    calls = [
        {"id": use["toolUseId"], "type": "function",
         "function": {"name": use["name"], "arguments": json.dumps(use["input"])}}
        for use in (block["toolUse"] for block in assistant[1:])
    ]  # fmt: skip
    spec = recorded["toolConfig"]["tools"][0]["toolSpec"]
    function = {"name": spec["name"], "description": spec["description"], "parameters": spec["inputSchema"]["json"]}
    made = request(
        {"role": "user", "content": recorded["messages"][0]["content"][0]["text"]},
        {"role": "assistant", "content": assistant[0]["text"], "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "50 degrees"} for call in calls),
        tools=[{"type": "function", "function": function}],
    )
    assert made["messages"][:2] == [{k: turn[k] for k in ("role", "content")} for turn in recorded["messages"][:2]]
    assert made["toolConfig"] == recorded["toolConfig"]
    results = [block["toolResult"]["toolUseId"] for block in made["messages"][2]["content"]]
    assert results == [block["toolResult"]["toolUseId"] for block in recorded["messages"][2]["content"]]
