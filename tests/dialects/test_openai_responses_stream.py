"""Responses streams ↔ chat streams: recorded ones at every cut, the tool loop of Codex, the official SDK's types."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import Stream
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.dialects.openai_responses import ResponsesStream
from gateway.dialects.openai_responses_reply import reply_from_chat, reply_to_chat
from gateway.dialects.openai_responses_stream import Decoder, Encoder, error_event
from gateway.dialects.openai_responses_to_chat import request_to_chat
from gateway.dialects.sse import parse_events
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage
from tests.support import golden
from tests.support.recordings import Recordings

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
RECORDED = [
    "deepseek-responses-stream", "openai-responses-stream", "openai-responses-stream-tool-use",
    "openai-responses-stream-encrypted-reasoning-round-trip",
]  # fmt: skip


def chunk(delta: Any = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": None, **more}]}


def called(index: int | None, name: str = "", text: str = "", **more: Any) -> dict[str, Any]:
    function = {"arguments": text} | ({"name": name} if name else {})
    place = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**place, "function": function, **more}]})


def events(block: bytes) -> list[dict[str, Any]]:
    """The events of a block, each one valid, numbered, and named as its type."""
    found = []
    for _, name, data in parse_events(block):
        event = orjson.loads(data)
        assert name == event["type"]
        EVENT.validate_python(event)
        found.append(event)
    return found


def encoded(request: dict[str, Any], chunks: Iterable[Any], finish: str | None = "stop") -> list[dict[str, Any]]:
    encoder = Encoder(request, "a1")
    block = b"".join([encoder.feed(each) for each in chunks])
    if finish:
        block += encoder.feed(chunk(finish_reason=finish)) + encoder.feed({**HEAD, "choices": [], "usage": USAGE})
    found = events(block + encoder.end())
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """Types without ``response.``, repeated ones once."""
    names = [event["type"].removeprefix("response.") for event in found]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client of chat makes of a stream."""
    said: dict[str, Any] = {"content": "", "reasoning_content": "", "refusal": "", "details": [], "calls": {}}
    for each in chunks:
        said["usage"] = each.get("usage")
        for choice in each["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content", "refusal"):
                said[name] += delta.get(name) or ""
            said["details"] += delta.get("reasoning_details") or []
            said["finish"] = choice["finish_reason"]
            for call in delta.get("tool_calls") or ():
                known = said["calls"].setdefault(call["index"], {"id": call.get("id"), "name": "", "text": ""})
                inner = call.get("function") or call["custom"]
                known["name"] += inner.get("name") or ""
                known["text"] += inner.get("arguments") or inner.get("input") or ""
    return said


def decoded(block: bytes, *cuts: int) -> tuple[list[dict[str, Any]], Decoder]:
    decoder = Decoder()
    edges = [0, *sorted(cuts), len(block)]
    chunks = [each for at, end in pairwise(edges) for each in decoder.feed(block[at:end])]
    return chunks + decoder.end(), decoder


def streams(test_data: Recordings, name: str) -> list[bytes]:
    found = [each.response for each in test_data.interactions(name) if each.streamed]
    assert found or name.endswith("round-trip")
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_streams_say_the_same_as_their_last_event(test_data: Recordings, name: str) -> None:
    for block in streams(test_data, name):
        last = next(orjson.loads(data) for _, _, data in parse_events(block) if b'"response.completed"' in data)
        whole = reply_to_chat(last["response"])
        message = whole["choices"][0]["message"]
        chunks, decoder = decoded(block)
        for each in chunks:
            ChatCompletionChunk.model_validate(each)
        said = joined(chunks)
        assert decoder.done and decoder.usage is not None
        assert said["content"] == (message["content"] or "")
        assert said["reasoning_content"] == message.get("reasoning_content", "")
        assert said["details"] == message.get("reasoning_details", [])
        calls = message.get("tool_calls", [])
        assert list(said["calls"].values()) == [
            {"id": call["id"], "name": call["function"]["name"], "text": call["function"]["arguments"]}
            for call in calls
        ]
        assert said["usage"] == whole["usage"]
        assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_streams_go_there_and_back(test_data: Recordings, name: str) -> None:
    for block in streams(test_data, name):
        chunks, _ = decoded(block)
        encoder = Encoder({"model": "m"})
        again = b"".join([encoder.feed(each) for each in chunks]) + encoder.end()
        events(again)
        back, decoder = decoded(again)
        assert {**joined(back), "details": None} == {**joined(chunks), "details": None, "usage": joined(back)["usage"]}
        reader = ResponsesStream()
        for _, event, data in parse_events(again):
            assert reader.event(event, data) == 0
        assert reader.done and reader.finished
        assert decoder.usage is not None and reader.usage == decoder.usage


@pytest.mark.parametrize("name", RECORDED[:3])
def test_recorded_streams_may_be_cut_anywhere(test_data: Recordings, name: str) -> None:
    block = streams(test_data, name)[0]
    whole, _ = decoded(block)
    for at in range(0, len(block), 37):
        assert decoded(block, at)[0] == whole


TEXT = [chunk({"role": "assistant", "content": ""}), chunk({"content": "He"}), chunk({"content": "llo"})]


@pytest.mark.parametrize(("case", "document"), golden.cases("openai_responses", "stream").items())
def test_golden(case: str, document: Any) -> None:
    assert encoded(document["input"]["request"], document["input"]["chunks"], None) == document["expected"]


def test_text_grows_in_one_message() -> None:
    found = encoded({}, TEXT)
    assert kinds(found) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    response = found[-1]["response"]
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["usage"]["total_tokens"] == 7
    assert {event["item_id"] for event in found if "item_id" in event} == {response["output"][0]["id"]}
    assert {event["response"]["id"] for event in found if "response" in event} == {"resp_a1"}


def test_codex_gets_each_call_whole_before_the_end() -> None:
    tools = [
        {"type": "namespace", "name": "agents", "description": "d", "tools": [{"type": "function", "name": "spawn"}]}
    ]
    chunks = [
        *TEXT, called(0, "exec_command", id="call_1"), called(0, text='{"cmd":'), called(0, text='"ls"}'),
        called(1, "agents__spawn", id="call_2"), called(1, text="{}"),
    ]  # fmt: skip
    found = encoded({"tools": tools}, chunks, "tool_calls")
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["message", "function_call", "function_call"]
    assert (done[1]["call_id"], done[1]["name"], done[1]["arguments"]) == ("call_1", "exec_command", '{"cmd":"ls"}')
    assert (done[2]["call_id"], done[2]["namespace"], done[2]["name"]) == ("call_2", "agents", "spawn")
    assert all(item["status"] == "completed" for item in done)
    assert found[-1]["type"] == "response.completed"
    assert found[-1]["response"]["output"] == done
    assert kinds(found)[-7:] == [
        "function_call_arguments.done", "output_item.done", "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip


def test_the_answer_of_a_tool_comes_back_as_chat() -> None:
    found = encoded({}, [called(0, "f", '{"a":1}', id="call_1")], "tool_calls")
    item = found[-1]["response"]["output"][0]
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
    chat, dropped = request_to_chat({"model": "m", "input": [{"role": "user", "content": "go"}, item, output]})
    assert chat["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]  # fmt: skip
    assert dropped == []


def test_interleaved_calls_keep_apart() -> None:
    chunks = [
        called(0, "f", id="1"), called(1, "g", id="2"), called(0, text='{"a"'), called(1, text='{"b"'),
        called(0, text=":1}"), called(1, text=":2}"),
    ]  # fmt: skip
    output = encoded({}, chunks, "tool_calls")[-1]["response"]["output"]
    assert [(item["name"], item["arguments"]) for item in output] == [("f", '{"a":1}'), ("g", '{"b":2}')]


@pytest.mark.parametrize("index", [0, None])
def test_whole_calls_without_an_index_of_their_own_keep_apart(index: int | None) -> None:
    chunks = [called(index, "f", "{}", id="1"), called(index, "g", "{}", id="2")]
    output = encoded({}, chunks, "tool_calls")[-1]["response"]["output"]
    assert [(item["name"], item["call_id"]) for item in output] == [("f", "1"), ("g", "2")]


def test_a_call_without_arguments_id_or_early_name() -> None:
    found = encoded({}, [called(0), called(0, "f"), called(0)], "tool_calls")
    item = found[-1]["response"]["output"][0]
    assert item["arguments"] == "{}" and item["call_id"].startswith("call_")
    assert [event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"] == ["{}"]


def test_a_custom_tool_gets_its_text() -> None:
    tools = [{"type": "custom", "name": "apply_patch"}]
    found = encoded({"tools": tools}, [called(0, "apply_patch", '{"input":', id="1"), called(0, text='"*** x"}')])
    assert kinds(found)[2:-1] == [
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done",
    ]  # fmt: skip
    assert found[-1]["response"]["output"][0]["input"] == "*** x"


def test_a_custom_call_of_the_provider_s_own_streams() -> None:
    first = {"index": 0, "id": "1", "type": "custom", "custom": {"name": "p", "input": ""}}
    more = [{"index": 0, "custom": {"input": text}} for text in ("a", "b")]
    found = encoded({}, [chunk({"tool_calls": [call]}) for call in (first, *more)], "tool_calls")
    assert [event["delta"] for event in found if event["type"].endswith("input.delta")] == ["a", "b"]
    back, _ = decoded(b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in found))
    assert joined(back)["calls"] == {0: {"id": "1", "name": "p", "text": "ab"}}


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("auto", ["reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.done",
                  "reasoning_summary_part.done"]),
        (None, ["content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"]),
    ],
)  # fmt: skip
def test_reasoning_is_a_summary_where_one_was_asked_for(summary: str | None, expected: list[str]) -> None:
    found = encoded({"reasoning": {"summary": summary}}, [chunk({"reasoning_content": "hm"}), *TEXT])
    assert kinds(found)[2:8] == ["output_item.added", *expected, "output_item.done"]
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message"]


def test_a_signature_survives_the_client() -> None:
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": "sig==", "format": "anthropic-claude-v1", "index": 0}
    ]
    pieces = [{**details[0], "text": "h", "signature": None}, {**details[0], "text": "m"}]
    extra = {"google": {"thought_signature": "ts=="}}
    chunks = [chunk({"reasoning_content": each["text"], "reasoning_details": [each]}) for each in pieces]
    found = encoded({}, [*chunks, called(0, "f", "{}", id="1", extra_content=extra)], "tool_calls")
    output = found[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "function_call"]
    chat, _ = request_to_chat({"input": [*output, {"type": "function_call_output", "call_id": "1", "output": "x"}]})
    assert chat["messages"][0]["reasoning_details"] == details
    assert chat["messages"][0]["reasoning_content"] == "hm"
    assert chat["messages"][0]["tool_calls"][0]["extra_content"] == extra


def test_refusals_annotations_and_logprobs() -> None:
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    cited = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 2}}
    chunks = [
        chunk({"content": "Hi"}, logprobs={"content": [token]}), chunk({"annotations": [cited]}),
        chunk({"refusal": "No"}),
    ]  # fmt: skip
    found = encoded({}, chunks, "content_filter")
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}
    text, refusal = found[-1]["response"]["output"][0]["content"]
    assert text["logprobs"] == [token] and text["annotations"][0]["url"] == "u"
    assert refusal == {"type": "refusal", "refusal": "No"}
    back, _ = decoded(b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in found))
    assert joined(back)["refusal"] == "No" and joined(back)["content"] == "Hi"
    assert any(each["choices"] and each["choices"][0]["delta"].get("annotations") == [cited] for each in back)


@pytest.mark.parametrize(
    ("finish", "last", "status"),
    [("length", "incomplete", "incomplete"), ("stop", "completed", "completed"), ("error", "failed", "completed")],
)
def test_how_an_answer_ends(finish: str, last: str, status: str) -> None:
    found = encoded({}, TEXT, finish)
    assert found[-1]["type"] == f"response.{last}"
    assert found[-1]["response"]["status"] == last
    assert found[-1]["response"]["output"][0]["status"] == status


def test_an_empty_answer_is_a_response_all_the_same() -> None:
    assert kinds(encoded({}, [], None)) == ["created", "in_progress", "completed"]


@pytest.mark.parametrize("bad", [{"choices": 5}, {"choices": [{"delta": {"tool_calls": ["x"]}}]}, {"choices": [3]}])
def test_a_chunk_in_another_shape_is_the_providers_fault(bad: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        Encoder({}).feed(bad)


def fragment(index: int, text: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "id": f"i{index}", "function": {"name": "f", "arguments": text}}]}


DELTA = st.one_of(
    st.builds(
        lambda name, text: {name: text},
        st.sampled_from(["content", "reasoning_content", "refusal"]),
        st.text(max_size=3),
    ),
    st.builds(fragment, st.integers(0, 2), st.sampled_from(["", "{", "}", '"a":1', "{}"])),
)


@given(st.lists(DELTA, max_size=12), st.sampled_from(["stop", "length", "tool_calls"]))
def test_whatever_comes_the_events_add_up_to_the_response(deltas: list[Any], finish: str) -> None:
    found = encoded({}, [chunk(delta) for delta in deltas], finish)
    output = found[-1]["response"]["output"]
    added = [event["output_index"] for event in found if event["type"] == "response.output_item.added"]
    done = {e["output_index"]: e["item"] for e in found if e["type"] == "response.output_item.done"}
    assert added == list(range(len(output)))
    assert [done[place] for place in added] == output
    for place, item in enumerate(output):
        told = "".join(e["delta"] for e in found if e["type"].endswith(".delta") and e["output_index"] == place)
        parts = [*item.get("content", []), *item.get("summary", [])]
        assert told == item.get("arguments", "".join(part.get("text", part.get("refusal", "")) for part in parts))
    said = "".join(delta.get("content", "") for delta in deltas)
    assert said == "".join(p["text"] for i in output if i["type"] == "message" for p in i["content"] if "text" in p)


@given(st.data())
def test_every_cut_gives_the_same_chunks(data: st.DataObject) -> None:
    found = encoded({}, [chunk({"reasoning_content": "é"}), *TEXT, called(0, "f", '{"ü":1}', id="1")], "tool_calls")
    block = b"".join(b"event: x\ndata: " + orjson.dumps(event) + b"\n\n" for event in found)
    cuts = data.draw(st.lists(st.integers(0, len(block)), max_size=4))
    assert decoded(block, *cuts)[0] == decoded(block)[0]


def test_items_that_come_whole_are_read_too() -> None:
    items = [
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    ]
    told = [{"type": "response.output_item.done", "output_index": at, "item": item} for at, item in enumerate(items)]
    told.append({"type": "response.completed", "response": {"id": "r", "output": items}})
    chunks, decoder = decoded(b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in told))
    said = joined(chunks)
    assert (said["reasoning_content"], said["content"]) == ("hm", "Hi")
    assert said["calls"] == {0: {"id": "1", "name": "f", "text": "{}"}}
    assert said["finish"] == "tool_calls" and decoder.usage is None


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, (429, "rate_limit_exceeded", "slow")),
        ({"type": "error", "error": {"type": "server_error", "message": "m"}}, (500, "server_error", "m")),
        ({"type": "response.failed", "response": {"error": {"code": "server_is_overloaded", "message": "m"}}},
         (503, "server_is_overloaded", "m")),
        ({"type": "response.failed", "response": {"error": {"code": "what", "message": None}}},
         (502, "what", "The provider reported an error.")),
    ],
)  # fmt: skip
def test_r30_an_error_inside_the_stream_is_raised(event: Any, expected: tuple[int, str, str]) -> None:
    with pytest.raises(StreamError) as caught:
        Decoder().feed(b"data: " + orjson.dumps(event) + b"\n\n")
    assert (caught.value.status, caught.value.code, caught.value.message) == expected


@pytest.mark.parametrize("data", [b"{", b"[]", b"3", b"{}", b'{"type":"response.output_text.delta"}', b'{"type":[]}'])
def test_what_is_no_event_is_the_providers_fault(data: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        Decoder().feed(b"data: " + data + b"\n\n")


def test_a_stream_cut_short_is_the_providers_fault() -> None:
    decoder = Decoder()
    decoder.feed(b'data: {"type":"response.created","response":{}}\n\n')
    with pytest.raises(UpstreamProtocolError):
        decoder.end()


def test_the_last_event_may_lack_its_empty_line() -> None:
    block = b'data: {"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}\n'
    decoder = Decoder()
    assert decoder.feed(block) == []
    assert decoder.end()[-1]["usage"]["total_tokens"] == 3
    assert decoder.usage == Usage(1, 2)


def test_the_official_client_raises_for_an_error_event() -> None:
    body = error_event(429, "rate_limit_exceeded", "Too many.", "rid")
    assert events(body)[0]["message"] == "Too many. (request id: rid)"
    client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1")
    response = httpx2.Response(200, content=body, request=httpx2.Request("POST", "http://127.0.0.1:1"))
    with pytest.raises(openai.APIError, match="Too many"):
        list(Stream(cast_to=object, response=response, client=client))


def test_whole_and_streamed_answers_agree() -> None:
    message = {"role": "assistant", "content": "Hello", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}  # fmt: skip
    chat = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    streamed = encoded({}, [*TEXT, called(0, "f", "{}", id="1")], "tool_calls")[-1]["response"]
    assert reply_from_chat(chat, {}, answer_id="a1") == streamed


def test_the_official_client_follows_the_stream() -> None:
    chunks = [chunk({"reasoning_content": "hm"}), *TEXT, called(0, "f", '{"a":', id="1"), called(0, text="1}")]
    encoder = Encoder({}, "a1")
    block = b"".join([encoder.feed(each) for each in [*chunks, chunk(finish_reason="tool_calls")]]) + encoder.end()

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=block)

    transport = httpx2.MockTransport(answer)
    client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1", http_client=httpx2.Client(transport=transport))
    with client.responses.stream(model="m", input="hi") as stream:
        response = stream.get_final_response()
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
