"""AWS event streams: recordings, any split of the bytes, damage, exceptions, Anthropic's events inside."""

from __future__ import annotations

import json
import struct
import tracemalloc
from base64 import b64encode
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import eventstream
from gateway.dialects.eventstream import AnthropicEvents, Message, MessageSplitter, encode, event
from gateway.dialects.stream_error import StreamError
from gateway.errors import UpstreamProtocolError
from tests.support.recordings import Recordings

TYPES = {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"}
RECORDED = (
    "bedrock-converse-stream", "bedrock-converse-stream-reasoning", "bedrock-converse-stream-tool-call",
    "bedrock-guardrail-stream", "bedrock-invoke-stream-anthropic",
)  # fmt: skip


def frame(headers: bytes, payload: bytes = b"{}") -> bytes:
    """A message with raw headers and right checksums."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def exception(kind: str, body: Any, message_type: str = "exception") -> bytes:
    return encode({":exception-type": kind, ":message-type": message_type}, json.dumps(body).encode())


def chunk(content: Any, **more: str) -> bytes:
    data = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode()
    payload = json.dumps({"bytes": b64encode(data).decode(), **more}).encode()
    return encode({":event-type": "chunk", ":message-type": "event"}, payload)


names = st.text("abc:-", min_size=1, max_size=20)
messages = st.lists(st.tuples(st.dictionaries(names, st.text(max_size=20), max_size=4), st.binary(max_size=60)))


@given(messages, st.data())
def test_what_is_encoded_is_read_again_however_it_is_cut(expected: list[Any], data: st.DataObject) -> None:
    raw = b"".join(encode(headers, payload) for headers, payload in expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    splitter = MessageSplitter()
    found: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += splitter.feed(raw[start:end])
    assert [tuple(message) for message in found] == expected
    assert splitter.rest == b""


@given(messages)
def test_botocore_reads_what_is_encoded(expected: list[Any]) -> None:
    botocore = pytest.importorskip("botocore.eventstream", reason="botocore is not installed")
    buffer = botocore.EventStreamBuffer()
    buffer.add_data(b"".join(encode(headers, payload) for headers, payload in expected))
    assert [(each.headers, each.payload) for each in buffer] == expected


@pytest.mark.parametrize("name", RECORDED)
def test_recordings_at_every_split_point(test_data: Recordings, name: str) -> None:
    for interaction in test_data.interactions(name):
        raw = interaction.response
        whole = MessageSplitter().feed(raw)
        assert [event(message)[0] for message in whole]
        for at in range(0, len(raw), 1 if len(raw) < 5000 else 17):
            splitter = MessageSplitter()
            assert splitter.feed(raw[:at]) + splitter.feed(raw[at:]) == whole
            assert splitter.rest == b""


def test_byte_by_byte() -> None:
    raw = encode(TYPES, b'{"a":1}')
    splitter = MessageSplitter()
    fed = [splitter.feed(raw[at : at + 1]) for at in range(len(raw))]
    assert [len(each) for each in fed] == [0] * (len(raw) - 1) + [1]
    assert fed[-1] == [Message(TYPES, b'{"a":1}')]


def test_values_of_every_type_of_header() -> None:
    def header(name: str, kind: int, value: bytes) -> bytes:
        return bytes([len(name)]) + name.encode() + bytes([kind]) + value

    raw = b"".join([
        header("yes", 0, b""), header("no", 1, b""), header("byte", 2, b"\xff"), header("short", 3, b"\x01\x00"),
        header("int", 4, b"\xff\xff\xff\xfe"), header("long", 5, bytes(7) + b"\x07"), header("raw", 6, b"\0\2hi"),
        header("text", 7, b"\0\2hi"), header("time", 8, bytes(7) + b"\x09"), header("uuid", 9, bytes(16)),
    ])  # fmt: skip
    (message,) = MessageSplitter().feed(frame(raw))
    assert message.headers == {
        "yes": True, "no": False, "byte": -1, "short": 256, "int": -2, "long": 7, "raw": b"hi", "text": "hi", "time": 9,
        "uuid": bytes(16),
    }  # fmt: skip


@given(st.data())
def test_no_damaged_byte_goes_unnoticed(data: st.DataObject) -> None:
    raw = bytearray(encode(TYPES, b'{"text":"hello"}'))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UpstreamProtocolError):
        MessageSplitter().feed(bytes(raw))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05:type",
        b"\x01a\x07\xff\xffx",
        b"\x01a\x0a",
        b"\x01a\x04\0\0",
        b"\x01\xff\x00",
        b"\x01a\x07\0\1\xff",
        b"\x01a",
    ],
    ids=["no type", "long value", "unknown type", "short number", "name no text", "value no text", "nothing behind"],
)
def test_headers_that_are_none(headers: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="malformed"):
        MessageSplitter().feed(frame(headers))


def prelude(total: int, headers: int) -> bytes:
    raw = struct.pack(">II", total, headers)
    return raw + struct.pack(">I", crc32(raw))


@pytest.mark.parametrize(("total", "headers"), [(0, 0), (15, 0), (100, 85), (16, 0xFFFFFFFF)])
def test_lengths_that_cannot_be(total: int, headers: int) -> None:
    with pytest.raises(UpstreamProtocolError, match="malformed"):
        MessageSplitter().feed(prelude(total, headers))


def test_a_message_that_is_too_large_is_refused_at_its_prelude() -> None:
    with pytest.raises(UpstreamProtocolError, match="too large"):
        MessageSplitter().feed(prelude((16 << 20) + 1, 0))
    assert MessageSplitter().feed(prelude(16 << 20, 0)) == []


def test_memory_is_bounded_by_one_message() -> None:
    raw = encode(TYPES, b"x" * 60_000)
    splitter = MessageSplitter()
    tracemalloc.start()
    try:
        for _ in range(300):
            for at in range(0, len(raw), 7000):
                splitter.feed(raw[at : at + 7000])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("throttlingException", 429, "rate_limit_exceeded"),
        ("modelStreamErrorException", 502, "model_stream_error"),
        ("serviceUnavailableException", 503, "service_unavailable"),
        ("validationException", 400, "validation"),
        ("internalServerException", 500, "internal_server"),
        ("modelTimeoutException", 504, "model_timeout"),
        ("somethingNewException", 502, "something_new"),
    ],
)
def test_exceptions_have_their_status(kind: str, status: int, code: str) -> None:
    (message,) = MessageSplitter().feed(exception(kind, {"message": "Said by the service."}))
    with pytest.raises(StreamError) as caught:
        event(message)
    error = caught.value
    assert (error.status, error.code, error.message) == (status, code, "Said by the service.")


def test_an_error_that_the_model_of_the_service_does_not_have() -> None:
    raw = encode({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Broken."}, b"")
    with pytest.raises(StreamError) as caught:
        event(*MessageSplitter().feed(raw))
    assert (caught.value.status, caught.value.code, caught.value.message) == (502, "internal_failure", "Broken.")


@pytest.mark.parametrize("body", [{}, [], "x", {"message": None}, {"message": ""}])
def test_an_exception_that_says_nothing(body: Any) -> None:
    with pytest.raises(StreamError, match=r"The provider reported an error\."):
        event(*MessageSplitter().feed(exception("validationException", body)))


def test_the_name_of_an_error_as_the_head_of_an_answer_has_it() -> None:
    kind = "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    assert eventstream.error_of(kind, b'{"message":"No."}', 400) == (400, "validation", "No.")
    assert eventstream.error_of("com.amazon#UnknownOperationException", b"<xml>", 404)[:2] == (404, "unknown_operation")
    assert eventstream.error_of("", b'{"Message":"Forbidden"}', 403) == (403, "", "Forbidden")


@pytest.mark.parametrize(
    "raw",
    [encode({":event-type": "x", ":message-type": "event"}, b"{"), encode({":event-type": "x"}, b"{}"),
     encode({":message-type": "event"}, b"{}"), encode(TYPES, b"[]")],
)  # fmt: skip
def test_what_is_no_event(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="malformed"):
        event(*MessageSplitter().feed(raw))


STOP = {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 14}}


def test_anthropic_s_events_stay_what_they_were() -> None:
    ping = b'{"type": "ping", "big": 12345678901234567890}'
    events = AnthropicEvents()
    other = encode({":event-type": "initial-response", ":message-type": "event"}, b"{}")
    out = events.feed(other + chunk(ping, p="abcd"))
    assert out == b"event: ping\ndata: " + ping + b"\n\n"
    assert events.feed(chunk(STOP)) == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert events.done and events.end() == b""


def test_line_breaks_in_an_event_do_not_tear_it() -> None:
    assert AnthropicEvents().feed(chunk(b'{"type":\n "ping"}')) == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_a_stream_without_message_stop_is_not_complete() -> None:
    events = AnthropicEvents()
    events.feed(chunk({"type": "ping"}))
    with pytest.raises(UpstreamProtocolError, match="ended before"):
        events.end()


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'"x"'])
def test_a_chunk_that_is_no_event(content: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="malformed"):
        AnthropicEvents().feed(chunk(content))


def test_the_recorded_invocation_becomes_anthropic_s_stream(test_data: Recordings) -> None:
    (recorded,) = test_data.interactions("bedrock-invoke-stream-anthropic")
    events = AnthropicEvents()
    out = b"".join(events.feed(recorded.response[at : at + 7]) for at in range(0, len(recorded.response), 7))
    names = [line[7:] for line in out.decode().splitlines() if line.startswith("event: ")]
    assert [*dict.fromkeys(names)] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert b"amazon" not in out and events.done
