"""R08: text chosen by a client or a provider never reaches a header unchecked: no second header, no 500."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from gateway.testing import Call, Response, ScriptedUpstream, as_asked, raw, whole
from tests.integration.conftest import KEY, Door

CONTROL = [chr(code) for code in (*range(0x20), 0x7F)]
HOSTILE = [
    *(f"a{char}b" for char in CONTROL),
    *(f"a{newline}X-Injected: 1" for newline in ("\r\n", "\n", "\r", "\u0085", "\u2028", "\u560a\u560d")),
    "é", "模型", "\U0001f600", "x" * 8192, " ", "", "a: b", "%0d%0aX-Injected:%201",
]  # fmt: skip


def _assert_sane(reply: Response) -> None:
    assert reply.status != 500, reply
    assert reply.header("x-injected") is None
    for name, value in reply.head.headers:
        assert name.isascii() and name.isprintable() and " " not in name, name
        assert value.isascii() and value.isprintable(), (name, value)
        assert len(value) <= 1024, name


async def _post(door: Door, body: Any, target: str = "/v1/chat/completions") -> Response:
    return await door.fetch(target, "POST", {"Content-Type": "application/json"}, json.dumps(body).encode())


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
async def test_r08_model_names(door: Door, upstream: ScriptedUpstream, text: str) -> None:
    for model in (text, f"stub/{text}", f"nowhere/{text}"):
        body = {"model": model, "messages": [], "user": text, "metadata": {text: text}}
        for stream in (False, True):
            _assert_sane(await _post(door, body | {"stream": stream}))
    for call in upstream.calls:
        assert call.header("x-injected") is None


@pytest.mark.parametrize("char", [char for char in CONTROL if char not in "\t"], ids=ascii)
async def test_r08_control_characters_in_request_headers(door: Door, upstream: ScriptedUpstream, char: str) -> None:
    for name in ("X-Request-ID", "Idempotency-Key", "traceparent", "Anthropic-Beta", "Cache-Control"):
        async with door.client() as client:
            body = b'{"model":"m","messages":[]}'
            await client.request(
                "POST", "/v1/chat/completions", [("Authorization", f"Bearer {KEY}"), (name, f"a{char}b")], body
            )
            answer = await client.read_some()
        status = answer.split(b" ", 2)[1] if answer.startswith(b"HTTP/") else b"400"
        assert status in (b"200", b"400"), answer
    for call in upstream.calls:
        assert all(value.isprintable() for _, value in call.headers), call.headers


@pytest.mark.parametrize(
    "given", ["x" * 129, "a b", "a;b", "a/b", "é", "", "a\tb", "{}", "<script>", "a,b", "x" * 8000]
)
async def test_r08_a_request_id_is_taken_only_if_it_is_a_token(
    door: Door, upstream: ScriptedUpstream, given: str
) -> None:
    reply = await door.chat(headers=[("X-Request-ID", given)])
    _assert_sane(reply)
    assert reply.status == 200
    assert reply.header("x-request-id") not in (given, None, "")
    assert upstream.calls[0].header("x-request-id") != given or not given


async def test_r08_a_good_request_id_is_taken(door: Door, upstream: ScriptedUpstream) -> None:
    reply = await door.chat(headers=[("X-Request-ID", "Abc-1.2_3")])
    assert reply.header("x-request-id") == "Abc-1.2_3"


_numbers = count()
STATUSES = [
    b"200 O\x01K", b"200 OK\rX-Injected: 1", b"200 \xff\xfe", b"200 " + b"x" * 9000, b"599 Odd", b"99 Odd", b"1000 Odd",
    b"200", b"abc OK", b"204 OK", b"304 OK", b"101 Switching Protocols",
]  # fmt: skip


@pytest.mark.parametrize("status", STATUSES, ids=ascii)
async def test_r08_a_providers_status_line(door: Door, upstream: ScriptedUpstream, status: bytes) -> None:
    upstream.script = raw(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    reply = await door.chat()
    _assert_sane(reply)
    assert reply.status in (200, 204, 304, 502, 504, 599), reply
    assert reply.head.start.isprintable()
    assert "Odd" not in reply.head.start or reply.status == 599


@pytest.mark.parametrize(
    "text", ["a\x01b", "a\x7fb", "a\x85b", "é", "a\rX-Injected: 1", "x" * 9000, "\x00", "\tx\t"], ids=ascii
)
@pytest.mark.parametrize("name", ["x-request-id", "x-ratelimit-limit", "retry-after", "content-type", "openai-version"])
async def test_r08_a_providers_header_values(door: Door, upstream: ScriptedUpstream, name: str, text: str) -> None:
    async def script(call: Call) -> None:
        await call.answer(200, b"{}", [(name, text)])

    for answer in (
        script,
        whole(429, {"error": {"message": text}}, [("Content-Type", "application/json"), (name, text)]),
    ):
        upstream.script = answer
        # A target of its own: what a 429 keeps away must not be the next test's calls.
        reply = await door.chat(model=f"stub/{next(_numbers)}")
        assert reply.status in (200, 429, 502), reply
        assert reply.header("x-injected") is None
        assert all(value.isprintable() for _, value in reply.head.headers), reply.head.headers


@pytest.mark.parametrize(
    "path", ["/v1/a%0d%0aX-Injected:%201", "/v1/%00", "/v1/a%c2%85b", "/p/st%0aub/x", "/v1/" + "x" * 7000]
)
async def test_r08_paths(door: Door, upstream: ScriptedUpstream, path: str) -> None:
    upstream.script = whole(200, {})
    _assert_sane(await door.fetch(path))
    assert all(call.header("x-injected") is None for call in upstream.calls)


async def test_r08_the_gateway_is_well_afterwards(door: Door, upstream: ScriptedUpstream) -> None:
    upstream.script = as_asked()
    assert (await door.chat()).status == 200
