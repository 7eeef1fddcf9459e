"""R07: a provider's reply headers are filtered; nothing in them can steer nginx, set cookies or desynchronise."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.testing import Call, GatewayProcess, ScriptedUpstream, chat_body, chat_events, error, raw
from gateway.testing.wire import encode_head
from tests.integration.conftest import KEY, Door
from tests.support.nginx import HOST, Nginx

NEVER = [
    ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("Set-Cookie2", "c=3"),
    ("X-Accel-Redirect", "/internal/secret"), ("X-Accel-Limit-Rate", "1"), ("X-Accel-Expires", "3600"),
    ("X-Accel-Charset", "koi8-r"), ("X-Sendfile", "/etc/passwd"), ("X-LiteSpeed-Location", "/etc/passwd"),
    ("X-Lighttpd-Send-File", "/etc/passwd"), ("X-LIGHTTPD-send-file", "/etc/passwd"), ("Server", "provider/9"),
    ("Via", "1.1 provider"), ("X-Powered-By", "PHP"), ("Alt-Svc", 'h3=":443"'),
    ("Strict-Transport-Security", "max-age=1"), ("Public-Key-Pins", "x"), ("Clear-Site-Data", '"*"'),
    ("Proxy-Authenticate", "Basic"), ("WWW-Authenticate", "Basic"), ("Proxy-Connection", "close"),
    ("Keep-Alive", "timeout=9"), ("Upgrade", "h2c"), ("Trailer", "X-T"), ("TE", "trailers"),
    ("Location", "https://evil.test/"), ("Refresh", "0;url=https://evil.test/"),
    ("openai-organization", "org-secret"), ("openai-project", "proj-secret"),
    ("anthropic-organization-id", "org-secret"), ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"), ("NEL", "{}"), ("Report-To", "{}"),
    ("Service-Worker-Allowed", "/"), ("Connection", "X-Listed"),
    ("X-Listed", "1"), ("X-Gateway-Target", "forged"), ("X-Gateway-Cache", "hit"),
]  # fmt: skip
KEPT = [
    ("openai-version", "2020-10-01"),
    ("openai-processing-ms", "12"),
    ("anthropic-ratelimit-tokens-limit", "9"),
]
# Names the gateway or nginx may answer with themselves; their values are checked instead.
_OWN = {"server", "connection", "x-gateway-target", "x-gateway-cache", "x-accel-buffering"}
_HOPS = ("Connection", "X-Listed", "Upgrade")  # of no meaning to a stream that stays open
KEYED = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
JSON = ("Content-Type", "application/json")


def _assert_clean(headers: list[tuple[str, str]]) -> None:
    names = [name.lower() for name, _ in headers]
    never = {name.lower() for name, _ in NEVER}
    assert set(names) & (never - _OWN) == set()
    sent = {(name.lower(), value) for name, value in NEVER}
    assert {(name.lower(), value) for name, value in headers} & sent == set()
    for single in ("content-length", "content-type", "transfer-encoding", "x-request-id", "date"):
        assert names.count(single) <= 1, single
    assert not {"content-length", "transfer-encoding"} <= set(names)
    values = dict(zip(names, (value for _, value in headers), strict=True))
    assert "aiohttp" not in values.get("server", "") and "python" not in values.get("server", "").lower()


def _kept(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers if name.lower() in dict(KEPT)]


async def test_r07_a_whole_reply_is_filtered(door: Door, upstream: ScriptedUpstream) -> None:
    body = chat_body("whole")

    async def script(call: Call) -> None:
        await call.answer(200, body, [JSON, *NEVER, *KEPT])

    upstream.script = script
    reply = await door.chat()
    assert (reply.status, reply.body) == (200, body)
    _assert_clean(reply.head.headers)
    assert sorted(_kept(reply.head.headers)) == sorted(KEPT)


async def test_r07_a_stream_is_filtered(door: Door, upstream: ScriptedUpstream) -> None:
    events = chat_events(3)

    async def script(call: Call) -> None:
        fixed = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]
        await call.head(200, [*fixed, *(pair for pair in NEVER if pair[0] not in _HOPS), *KEPT])
        for event in [*events, b""]:
            await call.chunk(event)

    upstream.script = script
    reply = await door.chat(stream=True)
    assert (reply.status, reply.body) == (200, b"".join(events))
    _assert_clean(reply.head.headers)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
async def test_r07_an_error_is_filtered(door: Door, upstream: ScriptedUpstream, status: int) -> None:
    upstream.script = error(status, headers=NEVER)
    # A target of its own: what a 429 keeps away must not be the next test's calls.
    reply = await door.chat(model=f"stub/{door.name}-{status}")
    assert reply.status == {401: 502, 403: 502}.get(status, status)
    _assert_clean(reply.head.headers)
    assert reply.header("content-type") == "application/json"


async def test_r07_lengths_always_equal_what_is_sent(door: Door, upstream: ScriptedUpstream) -> None:
    """Two answers on one connection: a wrong length would eat into, or leave rests before, the second."""
    shorter = encode_head("HTTP/1.1 200 OK", [JSON, ("Content-Length", "10"), ("Content-Length", "10")]) + b'{"a": "b"}'
    chunked = (
        encode_head("HTTP/1.1 200 OK", [JSON, ("Transfer-Encoding", "chunked")]) + b"5\r\n[1,2,\r\n1\r\n]\r\n0\r\n\r\n"
    )
    closed = encode_head("HTTP/1.0 200 OK", [JSON]) + b'{"until":"close"}'
    async with door.client() as client:
        for script in (raw(shorter), raw(chunked), raw(closed)):
            upstream.script = script
            await client.request("POST", "/v1/moderations", KEYED, b'{"model":"m","input":"x"}')
            reply = await client.read()
            assert reply.status in (200, 502)
            _assert_clean(reply.head.headers)
            if reply.status == 200:
                assert reply.body in (b'{"a": "b"}', b"[1,2,]", b'{"until":"close"}')


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
AMBIGUOUS = {
    "two lengths": _OK + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}",
    "length and coding": _OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "body too short": _OK + b"Content-Length: 20\r\n\r\n{}",
    "folded": _OK + b"Content-Length: 2\r\nX-A: b\r\n folded\r\n\r\n{}",
    "NUL": _OK + b"Content-Length: 2\r\nX-A: a\x00b\r\n\r\n{}",
    "a second answer": _OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nX-Second: 1\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_r07_an_ambiguous_reply_is_not_passed_on(door: Door, upstream: ScriptedUpstream, name: str) -> None:
    upstream.script = raw(AMBIGUOUS[name])
    async with door.client() as client:
        for _ in range(2):
            await client.request("POST", "/v1/moderations", KEYED, b'{"model":"m","input":"x"}')
            reply = await client.read()
            assert reply.status == 502 or reply.body == b"{}", reply
            assert reply.header("x-second") is None
            _assert_clean(reply.head.headers)


_IGNORED = "proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Charset;"


def _tempting(folder: Path, port: int) -> Nginx:
    """An nginx that serves a file of its own if what it proxies to asks for it."""
    (folder / "internal").mkdir(parents=True)
    (folder / "internal" / "secret").write_text("the operator's file")
    front = Nginx(folder, port, locations=f"location /internal/ {{ internal; root {folder}; }}")
    assert _IGNORED in front.config
    front.config = front.config.replace(_IGNORED, "")
    return front.start()


@pytest.mark.parametrize("stream", [False, True])
async def test_r07_nginx_never_serves_its_internal_files(
    gateway: GatewayProcess, upstream: ScriptedUpstream, tmp_path: Path, stream: bool
) -> None:
    kind = "text/event-stream" if stream else "application/json"
    body = b"".join(chat_events(1)) if stream else chat_body()

    async def script(call: Call) -> None:
        await call.answer(200, body, {"Content-Type": kind, "X-Accel-Redirect": "/internal/secret"})

    upstream.script = script
    for name, port, expected in (("bare", upstream.port, b"the operator's file"), ("gateway", gateway.port, body)):
        front = _tempting(tmp_path / name, port)
        try:
            assert (await Door("nginx", front.url, HOST).chat(stream=stream)).body == expected
        finally:
            front.stop()
