"""Tools both ways: flat names that can be taken back, custom tools as functions, choices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.dialects.openai_responses_tools import (
    ToolNames,
    call_of_text,
    text_of_call,
    tools_from_chat,
    tools_to_chat,
)
from gateway.errors import InvalidRequest

NAME = st.text("ab_", min_size=1, max_size=40)


def to_chat(*tools: Any, choice: Any = None) -> tuple[dict[str, Any], list[str]]:
    dropped = Dropped()
    body = {"tools": list(tools), "tool_choice": choice}
    return tools_to_chat(body, ToolNames(body["tools"]), dropped), dropped.names


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {}}


@given(NAME, NAME)
def test_a_flat_name_leads_back(namespace: str, name: str) -> None:
    names = ToolNames([{"type": "namespace", "name": namespace, "tools": [function(name)]}])
    flat = names.flat(name, namespace)
    assert len(flat) <= 64
    assert names.full(flat) == {"name": name, "namespace": namespace}
    assert names.full("other") == {"name": "other"} and names.flat("other") == "other"


def test_a_flat_name_gives_way_to_a_tool_that_is_called_so() -> None:
    names = ToolNames([function("a__b"), {"type": "namespace", "name": "a", "tools": [function("b")]}])
    assert names.flat("b", "a") != "a__b"
    assert names.full("a__b") == {"name": "a__b"}
    assert names.full(names.flat("b", "a")) == {"name": "b", "namespace": "a"}


def test_a_tool_of_an_earlier_request_keeps_its_flat_name() -> None:
    assert ToolNames([]).flat("b", "a") == "a__b"


@given(st.text())
def test_the_text_of_a_custom_tool_survives(text: str) -> None:
    assert text_of_call(call_of_text(text)) == text


def test_arguments_that_are_no_input_are_the_text() -> None:
    assert [text_of_call(raw) for raw in ("x", "5", '{"a":1}')] == ["x", "5", '{"a":1}']


def test_hosted_tools_are_dropped_and_told() -> None:
    search = {"type": "web_search", "external_web_access": False}
    assert to_chat(search, {"type": "mcp"}, choice="auto") == ({}, ["tools.web_search", "tools.mcp"])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "function", "name": "g", "namespace": "n"}, {"type": "function", "function": {"name": "n__g"}}),
        ({"type": "web_search"}, None),
        (5, None),
    ],
)
def test_choices(choice: Any, expected: Any) -> None:
    made, dropped = to_chat(function("f"), choice=choice)
    assert made.get("tool_choice") == expected
    assert dropped == ([] if expected else ["tool_choice"])


@pytest.mark.parametrize(
    "tool",
    [
        5,
        {},
        {"type": "function"},
        {"type": "function", "name": "f", "parameters": 5},
        {"type": "namespace", "name": "n"},
        {"type": "namespace", "name": "n", "tools": [5]},
        {"type": "custom", "name": "c", "format": 5},
    ],
)
def test_a_tool_that_cannot_be_understood_is_refused(tool: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"tools\[0\]"):
        to_chat(tool)
    with pytest.raises(InvalidRequest, match="tools: must be a list"):
        tools_to_chat({"tools": "x"}, ToolNames("x"), Dropped())


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
        ({"type": "custom", "custom": {"name": "f"}}, {"type": "custom", "name": "f"}),
        ({"type": "what"}, None),
    ],
)
def test_choices_from_chat(choice: Any, expected: Any) -> None:
    chat = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": choice}
    assert tools_from_chat(chat, Capabilities(), Dropped()).get("tool_choice") == expected
