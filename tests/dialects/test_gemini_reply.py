"""Whole answers both ways: golden files, recordings, the types of both SDKs, counting."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from gateway.dialects import gemini_reply
from gateway.dialects.openai_chat import read_usage
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import gemini as support
from tests.support import golden
from tests.support.recordings import Recordings

REPLIES = golden.cases("gemini", "reply")
CLIENT_REPLIES = golden.cases("gemini", "client_reply")


@pytest.mark.parametrize("case", REPLIES)
def test_golden_answers_of_providers(case: str) -> None:
    made = gemini_reply.reply_to_chat(REPLIES[case]["input"])
    assert made == REPLIES[case]["expected"]
    ChatCompletion.model_validate(made)


@pytest.mark.parametrize("case", CLIENT_REPLIES)
def test_golden_answers_for_our_clients(case: str) -> None:
    document = CLIENT_REPLIES[case]
    made = gemini_reply.reply_from_chat(document["input"], document["request"])
    assert made == document["expected"]
    support.check(made)


@pytest.mark.parametrize("case", [case for case in REPLIES if case not in ("blocked", "media")])
def test_an_answer_comes_back_the_same(case: str) -> None:
    body = REPLIES[case]["input"]
    request = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    back = gemini_reply.reply_from_chat(gemini_reply.reply_to_chat(body), request)
    was, now = support.told([body]), support.told([back])
    if case == "safety":
        now["text"] = ""  # what was withheld is said
    if case == "text":
        was["usage"].provenance = now["usage"].provenance
    assert support.plain(now) == support.plain(was)


def test_recorded_answers(test_data: Recordings) -> None:
    seen = 0
    for interaction in support.recorded(test_data, False):
        body = json.loads(interaction.response)
        chat = gemini_reply.reply_to_chat(body)
        ChatCompletion.model_validate(chat)
        used, recorded = read_usage(chat), gemini_reply.usage_of(body)
        assert used is not None and recorded is not None and used.total_tokens == recorded.total_tokens
        back = gemini_reply.reply_from_chat(chat, interaction.request_json)
        support.check(back)
        assert support.told([back]) | {"usage": None} == support.told([body]) | {"usage": None}
        seen += 1
    assert seen


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}, Usage(10, 5)),
        ({"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 5, "thoughtsTokenCount": 7,
          "toolUsePromptTokenCount": 3, "totalTokenCount": 25}, Usage(13, 12, 4, None, 7)),
        ({"promptTokenCount": 10, "totalTokenCount": 10}, Usage(10, 0)),
        ({"promptTokenCount": 10, "thoughtsTokenCount": 7, "totalTokenCount": 17}, Usage(10, 7, None, None, 7)),
        ({"promptTokenCount": 10}, Usage(10, None, provenance="partial")),
        ({"promptTokenCount": 10, "candidatesTokenCount": 5, "toolUsePromptTokenCount": 4, "totalTokenCount": 19,
          "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1}, {"modality": "AUDIO", "tokenCount": 9}],
          "toolUsePromptTokensDetails": [
              {"modality": "AUDIO", "tokenCount": 1}, {"modality": "IMAGE", "tokenCount": 3}],
          "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 5}], "serviceTier": "flex"},
         Usage(14, 5, audio_input_tokens=10, audio_output_tokens=0, image_input_tokens=3, image_output_tokens=5,
               service_tier="flex")),
        ({"promptTokenCount": 1, "totalTokenCount": 1, "promptTokensDetails": [3, {"modality": 4}], "serviceTier": 1},
         Usage(1, 0)),
        ({"promptTokenCount": 1, "totalTokenCount": 1, "trafficType": "ON_DEMAND_PRIORITY"},
         Usage(1, 0, service_tier="priority")),
        ({"promptTokenCount": 1, "totalTokenCount": 1, "trafficType": "ON_DEMAND"},
         Usage(1, 0, service_tier="on_demand")),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"promptTokenCount": "10"}, None),
        (None, None),
    ],
)  # fmt: skip
def test_counting(told: Any, usage: Usage | None) -> None:
    assert gemini_reply.usage_of({"usageMetadata": told}) == usage


@given(*[st.integers(0, 10**6)] * 3)
def test_counts_survive_the_way_there_and_back(prompt: int, answer: int, thoughts: int) -> None:
    total = prompt + answer + thoughts
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")
    body = {"usageMetadata": dict(zip(names, (prompt, answer, thoughts, total), strict=True))}
    back = gemini_reply.usage_from_chat(gemini_reply.usage_to_chat(body))
    assert back is not None
    assert tuple(back.get(name, 0) for name in names) == (prompt, answer, thoughts, total)


@pytest.mark.parametrize("body", [{}, [], None, {"candidates": {}}, {"candidates": [1]}, {"candidates": []}])
def test_what_is_no_answer_is_an_error(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        gemini_reply.reply_to_chat(body)


def test_an_error_that_claims_success_is_told() -> None:
    with pytest.raises(StreamError, match="busy") as caught:
        gemini_reply.reply_to_chat({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}})
    assert caught.value.status == 503


def test_an_answer_without_names_still_has_one() -> None:
    candidate = {"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP"}
    made = [gemini_reply.reply_to_chat({"candidates": [candidate]}) for _ in range(2)]
    assert made[0]["id"] != made[1]["id"]
    calls = [each["choices"][0]["message"]["tool_calls"][0]["id"] for each in made]
    assert calls[0] != calls[1]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NAMES = ("content", "tool_calls", "reasoning_details", "reasoning_content", "images", "refusal", "extra_content")


@given(st.dictionaries(st.sampled_from(NAMES), json_values), json_values, json_values)
def test_any_chat_is_translated_or_an_error_of_ours(message: Any, usage: Any, logprobs: Any) -> None:
    choices = [{"message": message, "finish_reason": "stop", "logprobs": logprobs}]
    for chat in ({"choices": choices, "usage": usage}, {"choices": message}, {"choices": [message]}):
        try:
            json.dumps(gemini_reply.reply_from_chat(chat, {}))
        except UpstreamProtocolError:
            pass
