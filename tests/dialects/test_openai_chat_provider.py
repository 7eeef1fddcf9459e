"""Servers that speak OpenAI Chat, each a little differently: what they are sent, and what is made of their answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import openai_chat_provider as provider
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support.recordings import Recordings

USER = {"role": "user", "content": "hi"}
DETAIL = {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "anthropic-claude-v1", "index": 0}
MARK = {"cache_control": {"type": "ephemeral"}}


def request(caps: Capabilities | None = None, usage: bool = True, **chat: Any) -> tuple[dict[str, Any], list[str]]:
    return provider.request_from_chat({"messages": [USER], **chat}, "m", caps=caps or Capabilities(), usage=usage)


def test_what_is_canonical_only_is_never_sent() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "x"}}}  # fmt: skip
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", **MARK}]},
        {**USER, **MARK},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "reasoning_details": [DETAIL],
         "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "is_error": True, "content": [
            {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:,"}}]},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f"}, **MARK}]
    chat: dict[str, Any] = {
        "messages": messages, "tools": tools, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "seed": None,
        "reasoning": {"effort": "low"}, "cache_control": {"type": "ephemeral"},
    }  # fmt: skip
    made, dropped = request(**chat)
    assert made == {
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{key: call[key] for key in call if key != "extra_content"}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "reasoning_effort": "low",
    }
    assert sorted(dropped) == [
        "messages.tool_calls.extra_content",
        "min_p",
        "reasoning_details",
        "repetition_penalty",
        "tool_result_media",
        "top_k",
    ]


@pytest.mark.parametrize(
    ("caps", "chat", "effort"),
    [
        (Capabilities(), {"reasoning_effort": "high"}, "high"),
        (Capabilities(), {"reasoning_effort": "max"}, "high"),
        (Capabilities(), {"reasoning_effort": "none"}, "none"),
        (Capabilities(), {"reasoning": {"max_tokens": 1024}}, "low"),
        (Capabilities(), {"reasoning": {"max_tokens": 8192}}, "medium"),
        (Capabilities(), {"reasoning": {"max_tokens": 32000}}, "high"),
        (Capabilities(), {"reasoning": {"enabled": False}}, "none"),
        (Capabilities(), {"reasoning": {"enabled": True}}, None),
        (Capabilities(efforts=("low", "high")), {"reasoning_effort": "medium"}, "low"),
        (Capabilities(efforts=()), {"reasoning_effort": "high"}, None),
    ],
)
def test_thinking_is_asked_for_as_far_as_the_model_can(
    caps: Capabilities, chat: dict[str, Any], effort: str | None
) -> None:
    made, dropped = request(caps, **chat)
    assert made.get("reasoning_effort") == effort
    assert "reasoning" not in made
    assert dropped == (["reasoning_effort"] if not caps.efforts else [])


def test_the_most_of_tokens_has_one_name() -> None:
    assert request(max_tokens=9)[0]["max_completion_tokens"] == 9
    made, _ = request(Capabilities(max_completion_tokens=False), max_completion_tokens=9)
    assert made["max_tokens"] == 9 and "max_completion_tokens" not in made


def test_sampling_goes_to_those_who_sample() -> None:
    made, dropped = request(Capabilities(sampling=False), temperature=1, top_p=1, seed=3)
    assert "temperature" not in made and "top_p" not in made and made["seed"] == 3
    assert dropped == ["temperature", "top_p"]


def test_usage_of_streams_is_asked_for() -> None:
    made, _ = request(stream=True, stream_options={"include_obfuscation": False})
    assert made["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in request(stream=True, usage=False)[0]
    assert "stream_options" not in request()[0]


def gathered(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    said: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "reason": None}
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            assert "reasoning" not in delta, "it has one name"
            assert isinstance(delta.get("content"), str | None), "text, not parts"
            for name in ("content", "reasoning_content"):
                said[name] += delta.get(name) or ""
            for piece in delta.get("tool_calls") or ():
                call = said["calls"].setdefault(piece["index"], ["", "", ""])
                function = piece.get("function") or {}
                call[0] = call[0] or piece.get("id")
                call[1] = call[1] or function.get("name")
                call[2] += function.get("arguments") or ""
            said["reason"] = choice.get("finish_reason") or said["reason"]
    return said


def decoded(raw: bytes, cuts: list[int], needs_marker: bool = True) -> tuple[dict[str, Any], provider.Decoder]:
    decoder = provider.Decoder(needs_marker)
    chunks: list[dict[str, Any]] = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        chunks += decoder.feed(raw[start:end])
    chunks += decoder.end()
    return gathered(chunks), decoder


RECORDED = {
    "groq-stream": (0, "stop", Usage(18, 73)),
    "mistral-stream": (0, "stop", Usage(11, 43)),
    "mistral-reasoning-stream-list-content": (0, "stop", Usage(10, 232)),
    "deepseek-reasoning-stream": (0, "stop", Usage(6, 212, cached_tokens=0, reasoning_tokens=198)),
    "openrouter-reasoning-stream": (0, "stop", None),
    "openai-compatible-tool-streaming-variant-a": (0, None, Usage(57, 17, cached_tokens=0, reasoning_tokens=0)),
    "openai-compatible-tool-streaming-variant-b": (0, None, Usage(57, 17, cached_tokens=0, reasoning_tokens=0)),
    "openai-compatible-tool-streaming-variant-c": (0, "tool_calls", Usage(56, 12, cached_tokens=0, reasoning_tokens=0)),
    "openai-compatible-tool-streaming-variant-d": (0, "tool_calls", Usage(57, 17, cached_tokens=0, reasoning_tokens=0)),
}
THINKING = ("mistral-reasoning-stream-list-content", "deepseek-reasoning-stream", "openrouter-reasoning-stream")


@pytest.mark.parametrize("name", RECORDED)
@given(data=st.data())
def test_recorded_streams_come_out_alike_however_they_are_cut(
    test_data: Recordings, name: str, data: st.DataObject
) -> None:
    index, reason, usage = RECORDED[name]
    raw = test_data.interactions(name)[index].response
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    said, decoder = decoded(raw, cuts)
    assert decoder.done
    assert decoder.usage is not None and (usage is None or decoder.usage == usage)
    assert said["reason"] == reason
    assert bool(said["reasoning_content"]) is (name in THINKING)
    if "tool" in name:
        (call,) = said["calls"].values()
        assert call[0] and call[1] == "llm_version"
        assert call[2] in ("", "{}")
    else:
        assert said["content"]
        assert not said["calls"]


def test_recorded_chunks_have_the_types_of_the_official_sdk(test_data: Recordings) -> None:
    pytest.importorskip("openai", reason="the openai SDK is not installed")
    from openai.types.chat import ChatCompletionChunk

    for name, (index, _, _) in RECORDED.items():
        for chunk in provider.Decoder().feed(test_data.interactions(name)[index].response):
            ChatCompletionChunk.model_validate(chunk)


def test_an_error_in_a_recorded_stream_is_one(test_data: Recordings) -> None:
    failed, *_ = test_data.interactions("groq-tool-use-failed-mid-stream-error")
    decoder = provider.Decoder()
    with pytest.raises(StreamError) as raised:
        decoder.feed(failed.response)
    assert (raised.value.status, raised.value.code) == (400, "tool_use_failed")
    assert not decoder.done


WHOLE = {
    "cerebras-chat-reasoning": (True, True),
    "huggingface-router-chat": (True, None),
    "openai-compatible-tool-calls-without-id": (False, None),
}


@pytest.mark.parametrize("name", WHOLE)
def test_recorded_whole_answers(test_data: Recordings, name: str) -> None:
    pytest.importorskip("openai", reason="the openai SDK is not installed")
    from openai.types.chat import ChatCompletion

    texts, thinks = WHOLE[name]
    first = test_data.interactions(name)[0]
    chat = provider.reply_to_chat(orjson.loads(first.response))
    ChatCompletion.model_validate(chat)
    message = chat["choices"][0]["message"]
    assert "reasoning" not in message
    assert bool(message.get("content")) is texts or bool(message.get("tool_calls"))
    if thinks:
        assert message["reasoning_content"]


def test_a_recorded_refusal_is_understood(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("groq-404")
    code, message = provider.error_to_chat(recorded.status, recorded.response)
    assert code == "model_not_found"
    assert message.startswith("The model `non-existent` does not exist")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"oops", "upstream_error", "The provider answered 500."),
        (b"[]", "upstream_error", "The provider answered 500."),
        (b'{"error": 5}', "upstream_error", "The provider answered 500."),
        (b'{"error": "boom"}', "upstream_error", "boom"),
        (b'{"error": {"message": "boom", "type": "server_error"}}', "server_error", "boom"),
        (b'{"error": {"code": 500}}', "500", "The provider answered 500."),
    ],
)
def test_refusals_of_any_shape(body: bytes, code: str, message: str) -> None:
    assert provider.error_to_chat(500, body) == (code, message)


CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":%b}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("raw", "needs_marker", "complete"),
    [
        (CHUNK % b"null" + DONE, True, True),
        (CHUNK % b'"stop"', True, False),
        (CHUNK % b'"stop"', False, True),
        (CHUNK % b"null", False, False),
        (b"", False, False),
        (CHUNK % b'"stop"' + DONE[:-2], True, True),
        ((CHUNK % b'"stop"')[:-2], False, True),
    ],
)
def test_r29_a_stream_is_complete_when_it_says_so(raw: bytes, needs_marker: bool, complete: bool) -> None:
    if complete:
        assert decoded(raw, [], needs_marker)[0]["content"] == "x"
        return
    with pytest.raises(UpstreamProtocolError):
        decoded(raw, [], needs_marker)


@pytest.mark.parametrize("event", [b"data: {\n\n", b"data: []\n\n", b"data: 5\n\n"])
def test_r28_a_malformed_event_breaks_the_stream(event: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        provider.Decoder().feed(CHUNK % b"null" + event)


@pytest.mark.parametrize("body", [None, [], {}, {"choices": None}])
def test_what_is_no_answer_is_the_provider_s_failure(body: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        provider.reply_to_chat(body)
