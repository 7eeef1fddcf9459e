"""R03: loopback unless told otherwise; behind nginx only the configured server name is served."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, RawClient, ScriptedUpstream
from tests.integration.conftest import KEY
from tests.support.nginx import HOST, Nginx

ECHO = '[providers.echo]\ntype = "echo"\n'
_LISTEN = "0A"


def _listening(pid: int) -> list[str]:
    """The local IP addresses a process listens on, from /proc (the kernel's own word)."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(descriptor)
        except FileNotFoundError:
            continue  # closed since it was listed: the connection that asked whether the gateway is up
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                found.append(_address(fields[1].partition(":")[0], family))
    return found


def _address(digits: str, family: socket.AddressFamily) -> str:
    """``0100007F`` → ``127.0.0.1``: 32-bit words in the machine's byte order."""
    words = [digits[at : at + 8] for at in range(0, len(digits), 8)]
    return socket.inet_ntop(family, b"".join(bytes.fromhex(word)[::-1] for word in words))


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="no /proc")
def test_r03_a_default_start_listens_on_loopback_only(gateway_server: GatewayFactory) -> None:
    gateway = gateway_server(ECHO)
    addresses = _listening(gateway.pid)
    assert len(addresses) == 2  # public and admin
    assert set(addresses) == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example.com"])
def test_r03_an_open_gateway_refuses_any_other_address(gateway_server: GatewayFactory, host: str) -> None:
    with pytest.raises(RuntimeError, match="keys"):
        gateway_server(f'{ECHO}\n[server]\nhost = "{host}"\n')


def test_r03_the_command_line_cannot_open_it_either(gateway_server: GatewayFactory) -> None:
    with pytest.raises(RuntimeError, match="keys"):
        gateway_server(ECHO, arguments=("--host", "0.0.0.0"))


def test_r03_a_chain_without_auth_is_open_too(gateway_server: GatewayFactory) -> None:
    keys = f'[keys.alice]\nsha256 = "{"ab" * 32}"\n'
    with pytest.raises(RuntimeError, match="auth"):
        gateway_server(f'{ECHO}\n[server]\nhost = "0.0.0.0"\n[plugins]\nchain = ["request_id"]\n{keys}')


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/v1/chat/completions", "unknown.example.com"),
        ("/v1/chat/completions", "127.0.0.1"),
        ("/v1/chat/completions", f"{HOST}/#"),
        ("/v1/chat/completions", f"{HOST}.evil.test"),
        ("/v1/chat/completions", f"evil.test@{HOST}"),
        ("/v1/chat/completions", f"{HOST}, evil.test"),
        ("http://evil.test/v1/chat/completions", HOST),
        ("http://evil.test/v1/chat/completions", "evil.test"),
        (f"http://{HOST}@evil.test/v1/chat/completions", HOST),
    ],
)
async def test_r03_nginx_serves_its_own_name_only(
    gateway: GatewayProcess, nginx: Nginx, upstream: ScriptedUpstream, target: str, host: str
) -> None:
    body = b'{"model":"m","messages":[]}'
    async with RawClient(nginx.url, host=host) as client:
        await client.request("POST", target, {"Authorization": f"Bearer {KEY}"}, body)
        answer = await client.read_some()
    assert answer == b"" or answer.split(b" ", 2)[1][:1] == b"4", answer
    assert upstream.requests == []
