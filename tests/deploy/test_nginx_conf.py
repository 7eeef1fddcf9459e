"""``deploy/nginx.conf`` in a real nginx, with a scripted server where the gateway would be."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from time import monotonic

import openai
import pytest

from gateway.testing import Call, RawClient, Response, ScriptedUpstream, chat, chat_stream, delayed, free_ports
from gateway.testing.wire import Headers
from tests.support.nginx import HOST, Nginx, render
from tests.support.programs import ROOT, needs_program

CONF = (ROOT / "deploy/nginx.conf").read_text()


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(chat("hello")) as server:
        yield server


@pytest.fixture
async def nginx(gateway: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Nginx]:
    front = Nginx(tmp_path, gateway.port).start()
    yield front
    front.stop()


async def ask(front: Nginx, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> Response:
    async with RawClient(front.url, host=HOST) as client:
        await client.request(method, target, headers, body)
        return await client.read()


def assert_refused(response: Response, status: int, code: str) -> None:
    assert response.status == status
    assert response.header("content-type") == "application/json"
    assert response.header("server") == "nginx"
    error = response.json["error"]
    assert error["code"] == code
    assert error["message"].endswith(f"(request id: {response.header('x-request-id')})")


def test_nginx_accepts_the_file(tmp_path: Path) -> None:
    port, gateway_port = free_ports(2)
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (tmp_path / name).mkdir()
    (tmp_path / "nginx.conf").write_text(render(port, gateway_port))
    command = [needs_program("nginx"), "-t", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"]
    directives = ["-g", "user root;"] if os.geteuid() == 0 else []
    done = subprocess.run(command + directives, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize("host", ["other.example.com", "127.0.0.1", f"{HOST}.evil.test", f"x.{HOST}", "_"])
async def test_r03_an_unknown_host_is_refused(nginx: Nginx, gateway: ScriptedUpstream, host: str) -> None:
    response = await ask(nginx, "GET", "/v1/models", {"Host": host})
    assert_refused(response, 421, "misdirected_request")
    assert not gateway.requests


@pytest.mark.parametrize("host", [f"{HOST}/#", f"{HOST}/?", f"a@{HOST}/", "a b", ""])
async def test_r03_a_malformed_host_is_refused(nginx: Nginx, gateway: ScriptedUpstream, host: str) -> None:
    assert_refused(await ask(nginx, "GET", "/v1/models", {"Host": host}), 400, "invalid_request")
    assert not gateway.requests


@pytest.mark.parametrize("target", ["http://evil.test/admin", "http://evil.test:80/", f"http://{HOST}.evil.test/"])
async def test_r03_a_foreign_authority_is_refused(nginx: Nginx, gateway: ScriptedUpstream, target: str) -> None:
    assert_refused(await ask(nginx, "GET", target), 421, "misdirected_request")
    assert not gateway.requests


async def test_r03_the_host_that_was_decided_on_is_the_one_passed(nginx: Nginx, gateway: ScriptedUpstream) -> None:
    await ask(nginx, "GET", f"http://{HOST}/v1/models", {"Host": "evil.test"})
    assert [(r.target, r.header("host")) for r in gateway.requests] == [("/v1/models", HOST)]


@pytest.mark.parametrize("target", ["/v1/%2e%2e/admin", "//admin", "/v1;/admin", "/v1/a%2Fb?x=%20&y", "/p/x/../v1"])
async def test_the_request_target_is_passed_as_it_came(nginx: Nginx, gateway: ScriptedUpstream, target: str) -> None:
    await ask(nginx, "GET", target)
    assert [request.target for request in gateway.requests] == [target]


@pytest.mark.parametrize(
    ("start", "headers", "status"),
    [
        ("POST / HTTP/1.1", {"Transfer-Encoding": "gzip, chunked"}, 501),
        ("POST / HTTP/1.0", {"Transfer-Encoding": "chunked"}, 400),
        ("POST / HTTP/2.0", {"Content-Length": "0"}, 505),
        ("POST / HTTP/1.1", {"Transfer-Encoding": "chunked", "Content-Length": "5"}, 400),
    ],
)
async def test_r01_what_the_gateway_need_not_judge_ends_here(
    nginx: Nginx, gateway: ScriptedUpstream, start: str, headers: dict[str, str], status: int
) -> None:
    async with RawClient(nginx.url) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await client.send(f"{start}\r\nHost: {HOST}\r\n{lines}\r\n0\r\n\r\n".encode())
        assert_refused(await client.read(), status, "invalid_request")
        await client.wait_closed()
    assert not gateway.requests


async def test_r09_the_peer_is_the_only_forwarded_address(nginx: Nginx, gateway: ScriptedUpstream) -> None:
    spoofed = [
        ("X-Forwarded-For", "10.1.1.1"), ("X-Forwarded-For", "10.1.1.2"), ("X_Forwarded_For", "10.1.1.3"),
        ("Forwarded", "for=10.1.1.4"), ("X-Real-IP", "10.1.1.5"), ("X-Forwarded-Proto", "https"),
    ]  # fmt: skip
    await ask(nginx, "GET", "/", spoofed)
    (request,) = gateway.requests
    assert request.head.all("x-forwarded-for") == ["127.0.0.1"]
    assert request.head.all("x-forwarded-proto") == ["http"]
    assert b"10.1.1." not in request.head.raw


async def test_r06_what_is_between_the_client_and_nginx_stays_there(nginx: Nginx, gateway: ScriptedUpstream) -> None:
    private = {"Cookie": "a=b", "Proxy-Authorization": "Basic x", "HTTP2-Settings": "AAMA", "Upgrade": "h2c"}
    kept = {"Authorization": "Bearer k", "Anthropic-Beta": "b-1", "Idempotency-Key": "i"}
    await ask(nginx, "GET", "/", private | {"Connection": "Upgrade, HTTP2-Settings"} | kept)
    (request,) = gateway.requests
    for name in (*private, "Connection"):
        assert request.header(name) is None, name
    assert {name: request.header(name) for name in kept} == kept


async def test_a_websocket_upgrade_reaches_the_gateway_which_answers_it(
    nginx: Nginx, gateway: ScriptedUpstream
) -> None:
    await ask(nginx, "GET", "/v1/responses", {"Connection": "Upgrade", "Upgrade": "WebSocket"})
    (request,) = gateway.requests
    assert request.header("upgrade") == "websocket"
    assert request.header("connection") is None


async def test_r07_the_gateway_cannot_be_made_to_serve_files_of_nginx(
    gateway: ScriptedUpstream, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("internal file")

    async def redirecting(call: Call) -> None:
        await call.answer(200, b"public", {"X-Accel-Redirect": "/files/secret.txt"})

    gateway.script = redirecting
    front = Nginx(tmp_path, gateway.port, locations=f"location /files/ {{ internal; alias {tmp_path}/; }}").start()
    try:
        response = await ask(front, "GET", "/")
    finally:
        front.stop()
    assert response.body == b"public"
    assert response.header("x-accel-redirect") is None


async def test_r32_events_are_passed_as_they_come(nginx: Nginx, gateway: ScriptedUpstream) -> None:
    gateway.script = chat_stream(5, pause=0.1)
    arrived = []
    async with RawClient(nginx.url, host=HOST) as client:
        await client.chat(stream=True)
        await client.read_head()
        async for _ in client.events():
            arrived.append(monotonic())
    assert all(later - earlier > 0.03 for earlier, later in pairwise(arrived))


@pytest.mark.parametrize("extra", [0, 1])
async def test_r36_the_body_limit_is_the_gateways_own(nginx: Nginx, gateway: ScriptedUpstream, extra: int) -> None:
    size = 64 * 1024 * 1024 + extra
    async with RawClient(nginx.url, host=HOST) as client:
        if not extra:
            await client.request("POST", "/", body=bytes(size))
            assert (await client.read()).status == 200
            assert len(gateway.requests[0].body) == size
        else:
            await client.request("POST", "/", {"Content-Length": str(size)})
            assert_refused(await client.read(), 413, "request_too_large")
            assert not gateway.requests


async def test_r62_the_refusals_of_nginx_are_typed_errors_of_the_sdk(nginx: Nginx, gateway: ScriptedUpstream) -> None:
    await gateway.stop()
    client = openai.AsyncOpenAI(base_url=f"{nginx.url}/v1", api_key="k", max_retries=0, default_headers={"Host": HOST})
    async with client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.models.list()
    assert caught.value.status_code == 502
    assert caught.value.code == "gateway_unreachable"
    assert caught.value.request_id


async def test_r62_a_gateway_that_does_not_answer_gives_json(gateway: ScriptedUpstream, tmp_path: Path) -> None:
    gateway.script = delayed(5, chat())
    front = Nginx(tmp_path, gateway.port)
    front.config = front.config.replace("proxy_read_timeout 3600s", "proxy_read_timeout 300ms")
    front.start()
    try:
        assert_refused(await ask(front, "POST", "/", body=b"{}"), 504, "gateway_timeout")
    finally:
        front.stop()
    assert len(gateway.requests) == 1, "a POST that was sent is never sent again"


async def test_r62_an_error_of_the_gateway_passes_as_it_is(nginx: Nginx, gateway: ScriptedUpstream) -> None:
    async def failing(call: Call) -> None:
        await call.answer(502, b'{"error":{"code":"upstream_error"}}', {"X-Request-Id": "r1"})

    gateway.script = failing
    response = await ask(nginx, "GET", "/")
    assert (response.status, response.body) == (502, b'{"error":{"code":"upstream_error"}}')
    assert response.header("x-request-id") == "r1"


@pytest.mark.parametrize(
    ("target", "headers", "method", "status", "code"),
    [
        ("/", {"X": "a" * 9000}, "GET", 431, "request_too_large"),
        ("/" + "a" * 9000, {}, "GET", 414, "request_too_large"),
        ("/", {}, "TRACE", 405, "method_not_allowed"),
        ("/nginx-refused", {}, "GET", 404, "not_found"),
    ],
)
async def test_r62_every_refusal_is_json(
    nginx: Nginx, target: str, headers: dict[str, str], method: str, status: int, code: str
) -> None:
    assert_refused(await ask(nginx, method, target, headers), status, code)


async def test_r40_one_address_has_a_limited_number_of_connections(gateway: ScriptedUpstream, tmp_path: Path) -> None:
    gateway.script = delayed(5, chat())
    front = Nginx(tmp_path, gateway.port)
    front.config = front.config.replace("limit_conn peers 1000;", "limit_conn peers 2;")
    front.start()
    try:
        async with RawClient(front.url, host=HOST) as one, RawClient(front.url, host=HOST) as two:
            await one.request("GET", "/")
            await two.request("GET", "/")
            await gateway.until(lambda: len(gateway.requests) == 2)
            assert_refused(await ask(front, "GET", "/"), 429, "rate_limit_exceeded")
    finally:
        front.stop()


async def test_r40_a_slow_head_ends_at_its_limit(gateway: ScriptedUpstream, tmp_path: Path) -> None:
    front = Nginx(tmp_path, gateway.port)
    front.config = front.config.replace("client_header_timeout 15s", "client_header_timeout 300ms")
    front.start()
    try:
        async with RawClient(front.url, host=HOST) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost:")
            await client.wait_closed(within=2)
    finally:
        front.stop()
    assert not gateway.requests


async def test_r58_keys_in_a_query_are_not_logged(nginx: Nginx) -> None:
    await ask(nginx, "GET", "/v1/models?key=sk-canary", {"Authorization": "Bearer sk-canary"})
    nginx.stop()  # the line is written behind the answer
    log = (nginx.folder / "access.log").read_text()
    assert '"path":"/v1/models"' in log
    assert "canary" not in log


def seconds(directive: str, text: str = CONF) -> float:
    (value,) = set(re.findall(rf"\b{directive} (\d+)(?:s|m);", text))
    unit = 60 if re.search(rf"\b{directive} \d+m;", text) else 1
    return float(value) * unit


@pytest.mark.parametrize(
    ("directive", "at_least", "at_most"),
    [
        ("client_header_timeout", 1, 15),
        ("client_body_timeout", 1, 60),
        ("send_timeout", 1, 60),
        ("proxy_read_timeout", 600, 3600),
        ("worker_shutdown_timeout", 600, 3600),
    ],
)
def test_time_limits(directive: str, at_least: float, at_most: float) -> None:
    assert at_least <= seconds(directive) <= at_most


def test_r51_nginx_hangs_up_first() -> None:
    server = (ROOT / "gateway/server.py").read_text()
    (gateway,) = re.findall(r"keepalive_timeout=([\d.]+)", server)
    upstream = CONF[CONF.index("upstream gateway {") :].partition("}")[0]
    assert seconds("keepalive_timeout", upstream) < float(gateway)
