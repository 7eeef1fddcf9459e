"""Forms pass without being held: their model is read on the way, replaced, authorised, and cannot be named later."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.testing import (
    Call,
    GatewayFactory,
    GatewayProcess,
    RawClient,
    Response,
    ScriptedUpstream,
    free_ports,
    whole,
)
from tests.integration.conftest import KEY

OTHER = "hg-integration-bob"
CONFIG = f"""
default_provider = "stub"
[server]
max_body = "40MiB"
body_timeout = "1s"
[keys.alice]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
[keys.bob]
sha256 = "{hashlib.sha256(OTHER.encode()).hexdigest()}"
models = ["small", "same"]
[providers.stub]
type = "openai_compat"
base_url = "http://127.0.0.1:$port/v1"
timeouts = {{ first_token = "2s" }}
[models.small]
targets = [{{ provider = "stub", model = "whisper-large-v3" }}]
"""
PATH = "/v1/audio/transcriptions"
TYPE = "multipart/form-data; boundary=cut"
MB = 1 << 20
SOUND = bytes(range(256)) * (MB // 256)


@pytest.fixture(scope="module")
def gateway(shared_gateway_server: GatewayFactory, provider_port: int) -> Iterator[GatewayProcess]:
    yield shared_gateway_server(CONFIG, port=str(provider_port))


@pytest.fixture
async def upstream(provider_port: int) -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(whole(200, {"text": "hello"}), port=provider_port) as scripted:
        yield scripted


def field(name: str, value: bytes) -> bytes:
    return b'--cut\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


def file(content: bytes) -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    return head + content + b"\r\n"


END = b"--cut--\r\n"


async def ask(gateway: GatewayProcess, body: bytes, *, key: str = KEY, chunked: bool = False) -> Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": TYPE}
    async with RawClient(gateway.url, timeout=30) as client:
        if not chunked:
            await client.request("POST", PATH, headers, body)
            return await client.read()
        await client.request("POST", PATH, {**headers, "Transfer-Encoding": "chunked"})
        for at in range(0, len(body), MB):
            piece = body[at : at + MB]
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        return await client.read()


def resident(gateway: GatewayProcess, row: str = "VmHWM") -> int:
    """Bytes of memory; ``VmHWM`` is the most there ever were."""
    lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(row))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_file_of_30_mb_passes_and_is_not_held(
    gateway: GatewayProcess, upstream: ScriptedUpstream, chunked: bool
) -> None:
    await ask(gateway, field("model", b"same") + file(SOUND) + END)  # what the first upload loads stays loaded
    body = field("model", b"same") + field("language", b"de") + file(SOUND * 30) + END
    before = resident(gateway)
    reply = await ask(gateway, body, chunked=chunked)
    assert reply.status == 200 and reply.json == {"text": "hello"}
    call = upstream.calls[-1]
    assert call.body == body
    assert call.header("content-type") == TYPE
    assert call.header("content-length") == (None if chunked else str(len(body)))
    assert resident(gateway) - before < 8 * MB


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("first", [True, False], ids=["model first", "small file first"])
async def test_the_targets_model_takes_the_place_of_the_name(
    gateway: GatewayProcess, upstream: ScriptedUpstream, chunked: bool, first: bool
) -> None:
    parts = [field("model", b"small"), file(SOUND[: MB // 2] * (8 if first else 1))]
    body = b"".join(parts if first else parts[::-1]) + END
    assert (await ask(gateway, body, key=OTHER, chunked=chunked)).status == 200
    (call,) = upstream.calls
    assert call.body == body.replace(b"\r\nsmall\r\n", b"\r\nwhisper-large-v3\r\n")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (field("model", b"large") + file(b"x") + END, 403),
        (field("model", b"small") + field("model", b"large") + file(b"x") + END, 400),
        (field("Model", b"large") + file(b"x") + END, 400),
        (field("api_base", b"http://127.0.0.1:9") + field("model", b"small") + END, 400),
        (file(b"x") + END[:-5], 400),
        (b"", 400),
    ],
    ids=["forbidden", "twice at once", "other case", "steering", "cut", "empty"],
)
async def test_r16_a_form_cannot_name_what_its_key_may_not_use(
    gateway: GatewayProcess, upstream: ScriptedUpstream, body: bytes, status: int
) -> None:
    reply = await ask(gateway, body, key=OTHER)
    assert reply.status == status and "error" in reply.json
    assert upstream.calls == []


@pytest.mark.parametrize("first", [b"", field("model", b"small")], ids=["none before", "another before"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_r16_a_model_behind_a_long_file_ends_the_upload(
    gateway: GatewayProcess, upstream: ScriptedUpstream, chunked: bool, first: bytes
) -> None:
    reply = await ask(gateway, first + file(SOUND * 4) + field("model", b"large") + END, key=OTHER, chunked=chunked)
    assert reply.status == 400
    assert "model" in reply.json["error"]["message"]
    assert [call for call in upstream.calls if call.read is not None] == []


async def test_r36_a_chunked_upload_past_the_limit_is_413(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    reply = await ask(gateway, field("model", b"small") + file(SOUND * 40) + END, chunked=True)
    assert reply.status == 413
    assert reply.json["error"]["code"] == "request_too_large"
    assert [call for call in upstream.calls if call.read is not None] == []


async def test_r40_an_upload_that_stops_is_408(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    async with RawClient(gateway.url) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": TYPE, "Content-Length": str(5 * MB)}
        await client.request("POST", PATH, headers)
        await client.send(field("model", b"small") + file(SOUND))
        reply = await client.read()
    assert reply.status == 408
    assert [call for call in upstream.calls if call.read is not None] == []


async def test_a_slow_upload_does_not_use_up_the_providers_time(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    async def thoughtful(call: Call) -> None:
        await asyncio.sleep(1)
        await whole(200, {"text": "hello"})(call)

    upstream.script = thoughtful
    body = field("model", b"small") + file(SOUND) + END
    async with RawClient(gateway.url) as client:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": TYPE, "Content-Length": str(len(body))}
        await client.request("POST", PATH, headers)
        for at in range(0, len(body), MB // 4):
            await client.send(body[at : at + MB // 4])
            await asyncio.sleep(0.6)  # 3 s together: more than first_token
        assert (await client.read()).status == 200


async def test_r16_a_limited_key_sends_no_body_of_a_type_that_names_no_model(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    for key, status in ((OTHER, 403), (KEY, 200)):
        async with RawClient(gateway.url) as client:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "text/plain"}
            await client.request("POST", "/v1/moderations", headers, b'{"model":"large"}')
            assert (await client.read()).status == status
    assert len(upstream.calls) == 1


async def test_a_form_no_byte_of_which_was_sent_goes_to_the_next_target(
    gateway_server: GatewayFactory, upstream: ScriptedUpstream
) -> None:
    (dead,) = free_ports(1)
    second = f"""
[providers.dead]
type = "openai_compat"
base_url = "http://127.0.0.1:{dead}/v1"
[models.sound]
targets = [{{ provider = "dead" }}]
fallbacks = ["small"]
"""
    gateway = gateway_server(CONFIG + second, port=str(upstream.port))
    body = field("model", b"sound") + file(SOUND) + END
    assert (await ask(gateway, body)).status == 200
    assert upstream.calls[0].body == body.replace(b"\r\nsound\r\n", b"\r\nwhisper-large-v3\r\n")


@pytest.mark.parametrize("length", [1, 8], ids=["short", "long"])
async def test_a_provider_that_refuses_before_it_has_read_is_heard(gateway_server: GatewayFactory, length: int) -> None:
    refusal = b'{"error":{"message":"No.","type":"t","param":null,"code":null}}'

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # It answers nothing more on this connection, and says so as RFC 9112 section 9.6 asks.
        fields = b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(refusal)
        head = b"HTTP/1.1 400 X\r\n" + fields
        writer.write(head + refusal)
        while await reader.read(1 << 20):
            pass
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        gateway = gateway_server(CONFIG, port=str(server.sockets[0].getsockname()[1]))
        for _ in range(3):
            reply = await ask(gateway, field("model", b"small") + file(SOUND * length) + END)
            assert reply.status == 400 and reply.body == refusal
        await gateway.stop()  # in good order: nothing of the uploads is left behind
