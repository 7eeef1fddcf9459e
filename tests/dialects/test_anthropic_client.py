"""Requests of clients that speak Anthropic → canonical ones: golden files, recorded clients, and what may go wrong."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from gateway.dialects.anthropic_client import count_to_chat, model_from_chat, models_from_chat, request_to_chat
from gateway.errors import InvalidRequest
from tests.support import golden
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}
SMALL = {"model": "m", "max_tokens": 5, "messages": [USER]}


def chat(**fields: Any) -> dict[str, Any]:
    return request_to_chat({**SMALL, **fields})[0]


def dropped(**fields: Any) -> list[str]:
    return request_to_chat({**SMALL, **fields})[1]


@pytest.mark.parametrize("case", golden.cases("anthropic_messages", "request_to_chat"))
def test_golden(case: str) -> None:
    document = golden.cases("anthropic_messages", "request_to_chat")[case]
    before = copy.deepcopy(document["input"])
    request, left = request_to_chat(document["input"])
    assert {"request": request, "dropped": left} == document["expected"]
    assert document["input"] == before, "the parsed body belongs to the whole chain"


def test_recorded_clients_are_understood(test_data: Recordings) -> None:
    """Claude Code, both majors of the SDKs, LangChain, Vercel's; nothing they send is lost but what is named."""
    lines = (test_data.folder.parent / "client-requests.trimmed.jsonl").read_text().splitlines()
    seen: dict[str, list[str]] = {}
    for line in lines:
        sent = json.loads(line)
        if "/messages" not in sent["path"]:
            continue
        body = sent["body"]
        if tools := body.get("tools"):  # long schemas are cut out of the recording
            body["tools"] = [tool | {"input_schema": {"type": "object"}} for tool in tools if isinstance(tool, dict)]
        translate = count_to_chat if sent["path"].endswith("count_tokens") else request_to_chat
        request, left = translate(body)
        assert request["messages"]
        seen[sent["client"]] = left
    assert {"anthropic-py", "anthropic-py-0x", "anthropic-js", "claude-code", "ai-sdk", "langchain"} <= set(seen)
    assert seen.pop("claude-code") == ["system.billing_header", "context_management"]
    seen.pop("claude-code-authtoken")
    assert not any(seen.values())


@pytest.mark.parametrize("most", [None, "5", True, -1, 1.5])
def test_max_tokens_must_be_there_but_not_where_tokens_are_counted(most: Any) -> None:
    with pytest.raises(InvalidRequest, match="max_tokens"):
        chat(max_tokens=most)
    request, left = count_to_chat({"model": "m", "messages": [USER]})
    assert (request, left) == ({"model": "m", "messages": [USER]}, [])


def test_zero_tokens_only_warm_a_cache() -> None:
    assert chat(max_tokens=0)["max_completion_tokens"] == 0


def test_a_stream_is_asked_for_with_its_usage() -> None:
    assert chat(stream=True)["stream_options"] == {"include_usage": True}
    assert "stream" not in chat(stream=False)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, {"reasoning": {"enabled": True, "max_tokens": 2000}}),
        ({"type": "adaptive", "display": "summarized"}, {"reasoning": {"enabled": True}}),
        ({"type": "adaptive", "display": "omitted"}, {"reasoning": {"enabled": True, "exclude": True}}),
        ({"type": "disabled"}, {"reasoning_effort": "none"}),
    ],
)
def test_thinking(thinking: Any, expected: Any) -> None:
    request = chat(thinking=thinking)
    assert {name: request[name] for name in request if name.startswith("reasoning")} == expected


def test_thinking_that_nobody_else_knows_is_dropped() -> None:
    assert dropped(thinking={"type": "between_tools"}) == ["thinking"]


TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)  # fmt: skip
def test_tool_choice(choice: Any, expected: Any) -> None:
    request = chat(tools=[TOOL], tool_choice=choice)
    assert request["tool_choice"] == expected
    assert "parallel_tool_calls" not in request


def test_a_choice_goes_with_the_tools_it_is_about() -> None:
    server = {"type": "web_search_20260318", "name": "web_search"}
    forced = {"type": "tool", "name": "web_search"}
    assert dropped(tools=[server], tool_choice=forced) == ["tools.web_search_20260318", "tool_choice"]
    assert "tool_choice" not in chat(tools=[server], tool_choice={"type": "auto"})
    assert dropped(tools=[TOOL, server], tool_choice=forced) == ["tools.web_search_20260318", "tool_choice"]
    with pytest.raises(InvalidRequest, match="tool_choice"):
        chat(tools=[TOOL], tool_choice={"type": "tool", "name": "g"})


def test_a_long_user_id_is_hashed_and_a_short_one_kept() -> None:
    assert chat(metadata={"user_id": "u-1"})["user"] == "u-1"
    hashed = chat(metadata={"user_id": '{"device_id": "0"}'})["user"]
    assert len(hashed) == 64
    assert hashed == chat(metadata={"user_id": '{"device_id": "0"}'})["user"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": "x"}, {"tools": [1]}, {"tools": [{"input_schema": {}}]}, {"tools": [TOOL | {"input_schema": 1}]},
        {"output_config": 1}, {"thinking": []}, {"metadata": "x"}, {"output_config": {"format": 1}},
    ],
)  # fmt: skip
def test_a_wrong_shape_is_the_client_s_fault(wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        chat(**wrong)


def test_models_have_the_shape_the_sdks_page_through() -> None:
    models: list[dict[str, Any]] = [
        {"id": "gpt-x", "object": "model", "created": 1_700_000_000, "owned_by": "x"},
        {"id": "b"},
    ]
    page = models_from_chat(models)
    assert [model["id"] for model in page["data"]] == ["gpt-x", "b"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "gpt-x", "b")
    assert [model["created_at"] for model in page["data"]] == ["2023-11-14T22:13:20Z", "1970-01-01T00:00:00Z"]
    assert models_from_chat([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    types = pytest.importorskip("anthropic.types", reason="the anthropic SDK is not installed")
    types.ModelInfo.model_validate(model_from_chat(models[0]))
