"""R36, R37, R39: bodies that are too long, hostile, or compressed are refused for what they are, over HTTP, at once."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter

import pytest

from gateway.testing import Call, GatewayFactory, GatewayProcess, RawClient, Response, ScriptedUpstream, as_asked
from tests.integration.conftest import KEY

LIMIT = 1 << 20
CONFIG = f"""
[server]
max_body = {LIMIT}
[plugins.rate_limit]
requests_per_minute = 0
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
[models.m]
targets = [{{ provider = "stub" }}]
"""
GOOD = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def with_field(value: bytes) -> bytes:
    return GOOD[:-1] + b',"x":' + value + b"}"


def padded(body: bytes) -> bytes:
    """The same, long enough for the other of the two readers."""
    return body[:1] + b'"pad":"' + b"p" * 300_000 + b'",' + body[1:]


VALUES = {
    "arrays": b"[" * 200 + b"]" * 200,
    "objects": b'{"a":' * 200 + b"1" + b"}" * 200,
    "mixed": b'[{"a":' * 100 + b"1" + b"}]" * 100,
    "deepest": b"[" * 200_000 + b"]" * 200_000,
    "arrays left open": b"[" * 100_000,
    "objects left open": b'{"a":' * 50_000,
    "keys": b"{" + b",".join(b'"%d":1' % n for n in range(100_001)) + b"}",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "digits": b"1" * 5000,
    "digits behind the point": b"0." + b"1" * 5000,
    "exponent": b"1e" + b"9" * 5000,
    "lone high surrogate": rb'"\ud800"',
    "lone low surrogate": rb'"\udc00"',
    "surrogates swapped": rb'"\udc00\ud800"',
    "not UTF-8": b'"\xff"',
    "overlong": b'"\xc0\xaf"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "UTF-8 cut": b'"\xe2\x82"',
    "beyond Unicode": b'"\xf5\x80\x80\x80"',
    "control character": b'"a\nb"',
    "nul": b'"a\0b"',
    "bad escape": rb'"\x41"',
    "short escape": rb'"\u12"',
    "single quotes": b"'a'",
    "no quotes": b"a",
    "comment": b"1/*a*/",
    "line comment": b"1//a\n",
    "hex": b"0x1",
    "octal": b"01",
    "plus": b"+1",
    "point first": b".5",
    "point last": b"5.",
    "bare minus": b"-",
    "bare exponent": b"1e",
    "trailing comma in array": b"[1,]",
    "trailing comma in object": b'{"a":1,}',
    "no colon": b'{"a" 1}',
    "number as a name": b"{1:2}",
    "two values": b"1 2",
    "True": b"True",
    "undefined": b"undefined",
    "nothing": b"",
}
WHOLE = {
    "empty": b"",
    "blank": b"  \n ",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16-LE": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "trailing data": GOOD + b"x",
    "trailing object": GOOD + GOOD,
    "trailing nul": GOOD + b"\0",
    "trailing bracket": GOOD + b"}",
    "cut": GOOD[:-1],
    "cut in a string": GOOD[:-8],
    "array": b"[" + GOOD + b"]",
    "string": b'"model"',
    "number": b"7",
    "null": b"null",
    "model twice": GOOD[:-1] + b',"model":"m"}',
    "stream twice": with_field(b'1,"stream":true,"stream":false'),
    "stream as text": with_field(b'1,"stream":"true"'),
    "no model": b'{"messages":[]}',
    "fields": b"{" + b",".join(b'"%d":1' % n for n in range(99_999)) + b"}",
    "form feed": b"\x0c" + GOOD,
}
CORPUS = {name: with_field(value) for name, value in VALUES.items()} | WHOLE
LONG = {f"{name}, long": padded(body) for name, body in CORPUS.items() if body[:1] == b"{" and len(body) < LIMIT // 2}


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> GatewayProcess:
    return shared_gateway_server(CONFIG, port=str(provider_port))


@pytest.fixture
async def upstream(provider_port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(as_asked(), port=provider_port) as scripted:
        yield scripted


async def ask(gateway: GatewayProcess, body: bytes, headers: dict[str, str] | None = None) -> Response:
    async with RawClient(gateway.url) as client:
        fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **(headers or {})}
        if fields.get("Transfer-Encoding") == "chunked":
            half = len(body) // 2
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])) + b"0\r\n\r\n"
        await client.request("POST", "/v1/chat/completions", fields, body)
        return await client.read()


def _processor_seconds(gateway: GatewayProcess) -> float:
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _peak(gateway: GatewayProcess) -> int:
    lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_the_corpus_has_sixty_bodies() -> None:
    assert len(CORPUS) >= 60


@pytest.mark.parametrize("body", (CORPUS | LONG).values(), ids=CORPUS | LONG)
async def test_r37_hostile_json_is_a_400(gateway: GatewayProcess, upstream: ScriptedUpstream, body: bytes) -> None:
    reply = await ask(gateway, body)
    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert b"Traceback" not in reply.body and len(reply.body) < 1000
    assert upstream.calls == []


async def test_r37_all_of_it_is_cheap(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    for body in CORPUS.values():
        await ask(gateway, body)  # what is loaded and grown once
    memory, processor = _peak(gateway), _processor_seconds(gateway)
    for body in CORPUS.values():
        await ask(gateway, body)
    assert _peak(gateway) - memory < 10 << 20
    assert (_processor_seconds(gateway) - processor) / len(CORPUS) < 0.05
    assert "Traceback" not in gateway.stderr
    assert (await ask(gateway, GOOD)).status == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
async def test_r36_the_limit_is_exact(
    gateway: GatewayProcess, upstream: ScriptedUpstream, chunked: bool, extra: int, status: int
) -> None:
    body = padded(GOOD)
    body = body[:8] + b"p" * (LIMIT + extra - len(body)) + body[8:]
    reply = await ask(gateway, body, {"Transfer-Encoding": "chunked"} if chunked else None)
    assert reply.status == status
    assert len(upstream.calls) == (status == 200)
    if status == 413:
        assert reply.json["error"]["code"] == "request_too_large"
        assert reply.header("content-type") == "application/json"


async def test_r36_an_announced_length_is_refused_unread(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    async with RawClient(gateway.url) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Length": str(10**15)}
        began = perf_counter()
        await client.request("POST", "/v1/chat/completions", headers)
        assert (await client.read()).status == 413
    assert perf_counter() - began < 1


async def test_r36_chunks_are_counted_while_they_come(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """Neither the end of the body nor much more than the limit is waited for."""
    async with RawClient(gateway.url) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        await client.request("POST", "/v1/chat/completions", headers)
        for _ in range(33):
            await client.send(b"8000\r\n" + b" " * 0x8000 + b"\r\n")  # 1 MiB and a bit
        assert (await client.read()).status == 413
    assert upstream.calls == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity", "identity, gzip", "x"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/v1/audio/transcriptions"])
async def test_r39_compressed_requests_are_415(
    gateway: GatewayProcess, upstream: ScriptedUpstream, coding: str, path: str
) -> None:
    async with RawClient(gateway.url) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Content-Encoding": coding}
        await client.request("POST", path, headers, GOOD)
        reply = await client.read()
    assert reply.status == 415
    assert reply.json["error"]["code"] == "unsupported_content_encoding"
    assert upstream.calls == []


async def test_r39_two_content_encodings_are_415(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    async with RawClient(gateway.url) as client:
        headers = [("Authorization", f"Bearer {KEY}"), ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
        await client.request("POST", "/v1/chat/completions", headers, GOOD)
        assert (await client.read()).status in (400, 415)
    assert upstream.calls == []


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
async def test_r39_no_compression_may_be_said_so(
    gateway: GatewayProcess, upstream: ScriptedUpstream, coding: str
) -> None:
    assert (await ask(gateway, GOOD, {"Content-Encoding": coding})).status == 200


NOISE = bytes(range(251)) * 400  # who decodes it fails
BOMBS = {"gzip": gzip.compress(bytes(64 << 20)), "deflate": zlib.compress(bytes(64 << 20)), "br": NOISE, "zstd": NOISE}
KINDS = ["application/json", "text/event-stream", "application/octet-stream"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_r39_encoded_replies_pass_undecoded(
    gateway: GatewayProcess, upstream: ScriptedUpstream, coding: str, kind: str
) -> None:
    async def packed(call: Call) -> None:
        await call.answer(200, BOMBS[coding], {"Content-Type": kind, "Content-Encoding": coding})

    upstream.script = packed
    before = _peak(gateway)
    reply = await ask(gateway, json.dumps({**json.loads(GOOD), "stream": kind == KINDS[1]}).encode())
    if kind == KINDS[1]:  # events nobody can read the end of
        assert reply.status == 502 and reply.header("content-encoding") is None
        assert reply.json["error"]["code"] == "upstream_protocol_error"
    else:
        assert reply.status == 200
        assert reply.body == BOMBS[coding] and reply.header("content-encoding") == coding
    assert upstream.calls[0].header("accept-encoding") == "identity"
    assert _peak(gateway) - before < 16 << 20
