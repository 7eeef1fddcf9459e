"""Canonical requests → Cohere's: golden files, what may go wrong, recorded requests."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.dialects import cohere
from gateway.dialects.capabilities import Capabilities
from gateway.errors import InvalidRequest
from tests.support import golden
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}
CASES = golden.cases("cohere", "request")
OTHERS = {"embed_request": cohere.request_from_embeddings, "rerank_request": cohere.request_from_rerank}
OTHER_CASES = [(what, case, document) for what in OTHERS for case, document in golden.cases("cohere", what).items()]


def translate(chat: dict[str, Any], **caps: Any) -> tuple[dict[str, Any], list[str]]:
    return cohere.request_from_chat(chat, "m", caps=Capabilities(**caps))


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    document = CASES[case]
    before = copy.deepcopy(document["input"])
    request, dropped = translate(document["input"], **document.get("caps", {}))
    assert {"request": request, "dropped": dropped} == document["expected"]
    assert document["input"] == before, "the parsed body belongs to the whole chain"


@pytest.mark.parametrize(
    ("what", "document"),
    [(what, document) for what, _, document in OTHER_CASES],
    ids=[f"{what}.{case}" for what, case, _ in OTHER_CASES],
)
def test_golden_of_embeddings_and_rerank(what: str, document: Any) -> None:
    request, dropped = OTHERS[what](document["input"], "m")
    assert {"request": request, "dropped": dropped} == document["expected"]


def test_what_it_is_embedded_for_is_the_client_s_word_before_ours() -> None:
    body = {"input": "x"}
    assert cohere.request_from_embeddings(body, "m", input_type="clustering")[0]["input_type"] == "clustering"
    body["input_type"] = "classification"
    assert cohere.request_from_embeddings(body, "m", input_type="clustering")[0]["input_type"] == "classification"


def test_images_are_embedded_without_texts() -> None:
    request, dropped = cohere.request_from_embeddings({"images": ["data:image/png;base64,aGk="]}, "m")
    assert "texts" not in request and request["images"] and not dropped


def test_recorded_requests_are_made_again(test_data: Recordings) -> None:
    for name in ("cohere-v2-chat-stream-tools", "cohere-v2-chat-stream"):
        (recorded,) = test_data.interactions(name)
        sent = recorded.request_json  # Cohere's request without its own words is a request of ours
        assert cohere.request_from_chat(sent, sent["model"]) == (sent, [])
    (recorded,) = test_data.interactions("cohere-v2-rerank")
    assert cohere.request_from_rerank(recorded.request_json, "rerank-english-v3.0") == (recorded.request_json, [])


def refused(match: str, *messages: Any, **fields: Any) -> Any:
    return pytest.param({"messages": list(messages) or [USER], **fields}, match, id=match)


def part(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [fields]}


@pytest.mark.parametrize(
    ("chat", "match"),
    [
        pytest.param({}, "^messages: must be a list", id="none"),
        refused(r"^messages\[0\]\.role: must be one of", {"role": "robot", "content": "x"}),
        refused(r"content: must be a string or a list", {"role": "user", "content": 1}),
        refused(r"takes text and image_url parts", part(type="input_audio", input_audio={"data": "AAAA"})),
        refused(r"takes text parts", {"role": "tool", "tool_call_id": "1", "content": [{"type": "image_url"}]}),
        refused(r"image_url\.url: must be a string", part(type="image_url", image_url={})),
        refused(r"tool_calls: must be a list", {"role": "assistant", "tool_calls": "x"}),
        refused(r"tool_calls\[0\]\.function\.name", {"role": "assistant", "tool_calls": [{}]}),
        refused(r"json_schema\.schema: must be", response_format={"type": "json_schema"}),
        refused(r"^tools: must be a list", tools="x"),
        refused(r"^tools\[0\]: must be an object", tools=["x"]),
        refused(r"^tools\[0\]\.function\.name", tools=[{"type": "function"}]),
    ],
)
def test_what_cannot_be_understood(chat: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        translate(chat)


@pytest.mark.parametrize(
    ("body", "match"),
    [({"input": [[1, 2]]}, "token ids"), ({"input": [1]}, "token ids"), ({}, "takes a"), ({"input": []}, "takes"),
     ({"input": "x", "encoding_format": "int8"}, "encoding_format")],
)  # fmt: skip
def test_what_is_not_embedded(body: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        cohere.request_from_embeddings(body, "m")


@pytest.mark.parametrize(
    "body", [{"query": 1, "documents": ["a"]}, {"query": "q"}, {"query": "q", "documents": []},
             {"query": "q", "documents": [{"title": "a"}]}, {"query": "q", "documents": "a"}],
)  # fmt: skip
def test_what_is_not_ranked(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="must be a"):
        cohere.request_from_rerank(body, "m")


def test_tools_are_not_forced_where_the_model_does_not_allow_it() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        request, dropped = translate({"messages": [USER], "tools": tools, "tool_choice": choice}, forced_tools=False)
        assert "tool_choice" not in request and dropped == ["tool_choice"]
    request, _ = translate({"messages": [USER], "tools": tools, "tool_choice": "none"})
    assert request["tool_choice"] == "NONE"


def test_a_tool_that_is_demanded_and_not_there_is_no_reason_to_force_another() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    named = {"type": "function", "function": {"name": "g"}}
    request, dropped = translate({"messages": [USER], "tools": tools, "tool_choice": named})
    assert len(request["tools"]) == 1 and "tool_choice" not in request and dropped == ["tool_choice"]


def test_a_model_that_has_no_thinking_is_not_asked_for_it() -> None:
    assert translate({"messages": [USER], "reasoning_effort": "high"}, budget_thinking=False)[1] == ["reasoning_effort"]
    assert translate({"messages": [USER], "reasoning": {"enabled": True}}, budget_thinking=False)[1] == ["reasoning"]


def test_a_refusal_is_what_the_assistant_said() -> None:
    request, _ = translate({"messages": [{"role": "assistant", "content": None, "refusal": "No."}]})
    assert request["messages"] == [{"role": "assistant", "content": "No."}]
