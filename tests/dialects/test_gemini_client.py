"""Gemini's requests → canonical ones, against golden files, recorded requests and what may go wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import gemini_client
from gateway.errors import InvalidRequest
from tests.support import gemini as support
from tests.support import golden
from tests.support.recordings import Recordings

CONTENTS = [{"role": "user", "parts": [{"text": "hi"}]}]
CASES = golden.cases("gemini", "client")


def ask(**fields: Any) -> dict[str, Any]:
    chat, _ = gemini_client.request_to_chat({"contents": CONTENTS, **fields})
    return chat


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    document = CASES[case]
    body = document["input"]
    before = copy.deepcopy(body)
    chat, dropped = gemini_client.request_to_chat(body)
    assert {"chat": chat, "dropped": dropped} == document["expected"]
    assert body == before


def test_recorded_requests_are_understood(test_data: Recordings) -> None:
    seen = 0
    for interaction in [*support.recorded(test_data, True), *support.recorded(test_data, False)]:
        _, dropped = gemini_client.request_to_chat(interaction.request_json)
        assert dropped in ([], ["safetySettings"])
        seen += 1
    assert seen >= 8


@pytest.mark.parametrize(
    ("thinking", "fields"),
    [
        ({"thinkingLevel": "HIGH"}, {"reasoning_effort": "high"}),
        ({"thinkingBudget": 0}, {"reasoning_effort": "none"}),
        ({"thinkingBudget": -1}, {"reasoning": {"enabled": True}}),
        ({"thinkingBudget": 100, "includeThoughts": True}, {"reasoning": {"max_tokens": 100}}),
        ({"includeThoughts": True}, {"reasoning": {"enabled": True}}),
        ({"includeThoughts": False}, {}),
    ],
)
def test_thinking(thinking: Any, fields: Any) -> None:
    chat = ask(generationConfig={"thinkingConfig": thinking})
    assert {name: value for name, value in chat.items() if name != "messages"} == fields


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({}, None),
        ({"mode": "AUTO"}, "auto"),
        ({"mode": "NONE"}, "none"),
        ({"mode": "ANY"}, "required"),
        ({"mode": "VALIDATED"}, "auto"),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_tool_config(config: Any, choice: Any) -> None:
    tools = [{"functionDeclarations": [{"name": "f"}]}]
    assert ask(tools=tools, toolConfig={"functionCallingConfig": config}).get("tool_choice") == choice


def test_json_without_a_schema_and_other_types() -> None:
    assert ask(generationConfig={"responseMimeType": "application/json"})["response_format"] == {"type": "json_object"}
    body = {"contents": CONTENTS, "generationConfig": {"responseMimeType": "text/x.enum"}}
    assert gemini_client.request_to_chat(body)[1] == ["generationConfig.responseMimeType"]


def test_either_form_of_a_count_is_understood() -> None:
    inner = {"contents": CONTENTS, "systemInstruction": {"parts": [{"text": "x"}]}}
    for body in (inner, {"generateContentRequest": {"model": "models/m", **inner}}):
        chat, dropped = gemini_client.count_to_chat(body)
        assert [message["role"] for message in chat["messages"]] == ["system", "user"] and dropped == []
    types = pytest.importorskip("google.genai.types")
    assert gemini_client.count_body(7)["totalTokens"] == 7
    types.CountTokensResponse.model_validate({"totalTokens": gemini_client.count_body(7)["totalTokens"]})


@pytest.mark.parametrize(
    ("request_body", "wanted"),
    [
        ({}, False),
        ({"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}, True),
        ({"generation_config": {"thinking_config": {"include_thoughts": True}}}, True),
        ({"generationConfig": {"thinkingConfig": {"includeThoughts": False}}}, False),
        ({"generationConfig": []}, False),
    ],
)
def test_whether_thoughts_are_wanted(request_body: Any, wanted: bool) -> None:
    assert gemini_client.asks_for_thoughts(request_body) is wanted


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"cachedContent": "cachedContents/1"}, "^cachedContent: this model cannot see"),
        ({"contents": []}, "^contents: must be a list"),
        ({"tools": {}}, "^tools: must be a list"),
        ({"tools": [1]}, r"^tools\[0\]: must be an object"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "name: must be a string"),
        ({"tools": [{"functionDeclarations": {}, "function_declarations": 1}]}, "must be a list"),
        ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": 1}]}]}, "parameters: must be an object"),
        ({"generationConfig": 1}, "^generationConfig: must be an object"),
        ({"systemInstruction": {"parts": [{"text": 1}]}}, r"^systemInstruction.parts\[0\]: must be a string"),
        ({"safetySettings": deep(200)}, "nested too deeply"),
    ],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        ask(**fields)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safety_settings", "x")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_is_translated_or_refused(body: dict[str, Any]) -> None:
    try:
        chat, dropped = gemini_client.request_to_chat({"contents": CONTENTS, **body})
    except InvalidRequest:
        return
    assert chat["messages"] and all(isinstance(name, str) for name in dropped)
