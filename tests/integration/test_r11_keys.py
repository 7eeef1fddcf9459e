"""R11, R12: a virtual key exists with its holder only; what is stored, logged or counted opens nothing."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys

import pytest

from gateway.testing import GatewayFactory, GatewayProcess, ScriptedUpstream, as_asked, fetch_chat
from tests.support.exchanges import disguises
from tests.support.programs import ROOT

CONFIG = """
[keys.alice]
sha256 = "$alice"
[keys.bob]
sha256 = "$bob"
models = ["none"]
[providers.stub]
type = "openai_compat"
base_url = "$upstream/v1"
[models.m]
targets = [{ provider = "stub" }]
"""


def new_key(name: str) -> tuple[str, str]:
    """A key and its digest, as the command prints them."""
    command = [sys.executable, "-m", "gateway", "keys", "new", name]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    digest = re.search(r'sha256 = "([0-9a-f]{64})"', printed)
    assert digest is not None, printed
    for word in re.findall(r"[A-Za-z0-9._-]{20,}", printed):
        if hashlib.sha256(word.encode()).hexdigest() == digest[1]:
            return word, digest[1]
    raise AssertionError(f"no key of this digest in {printed!r}")


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    return {name: new_key(name) for name in ("alice", "bob")}


def files_of(gateway: GatewayProcess) -> bytes:
    return b"".join(path.read_bytes() for path in gateway.folder.rglob("*") if path.is_file())


def test_r11_keys_are_random_and_long(keys: dict[str, tuple[str, str]]) -> None:
    first, second = keys["alice"][0], keys["bob"][0]
    assert first != second
    random = [key.removeprefix("hg-") for key in (first, second)]
    assert random[0] != random[1]
    # 5 bits are less than a letter of base64 has, and more than one of hexadecimal: 26 letters of the one are 128.
    assert all(len(letters) * 5 >= 128 and len(set(letters)) > 10 for letters in random)


async def test_r11_nothing_that_is_kept_is_a_key(
    gateway_server: GatewayFactory, keys: dict[str, tuple[str, str]]
) -> None:
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(CONFIG, upstream=upstream.url, alice=keys["alice"][1], bob=keys["bob"][1])
        key, digest = keys["alice"]
        for name, header in (("alice", "Authorization"), ("alice", "x-api-key"), ("bob", "api-key")):
            value = f"Bearer {keys[name][0]}" if header == "Authorization" else keys[name][0]
            reply = await fetch_chat(gateway.url, headers={header: value})
            assert reply.status == (200 if name == "alice" else 403)
            assert not any(shape in reply.head.raw + reply.body for shape in disguises(keys[name][0]))
            assert digest.encode() not in reply.head.raw + reply.body
        for stored in (digest, digest.upper(), bytes.fromhex(digest).decode("latin-1"), key[:-1], key.swapcase()):
            if stored.isprintable():
                assert (await fetch_chat(gateway.url, key=stored)).status == 401
        assert all(key not in str(call.headers) + call.body.decode() for call in upstream.calls)
        metrics = (await gateway.metrics()).text
        assert len(upstream.calls) == 2
    await gateway.stop()
    kept = files_of(gateway) + metrics.encode()
    for name in keys:
        assert not any(shape in kept for shape in disguises(keys[name][0]))
    assert "alice" in gateway.stdout + gateway.stderr  # the log does say who it was, by name


async def test_r12_keys_that_begin_alike_stay_apart(gateway_server: GatewayFactory) -> None:
    common = "hg-" + "c" * 57
    digests = {name: hashlib.sha256((common + name).encode()).hexdigest() for name in ("alice", "bob")}
    async with ScriptedUpstream(as_asked()) as upstream:
        gateway = gateway_server(CONFIG, upstream=upstream.url, alice=digests["alice"], bob=digests["bob"])
        for _ in range(50):
            statuses = [
                (await fetch_chat(gateway.url, key=common + name)).status for name in ("alice", "bob", "eve", "")
            ]
            assert statuses == [200, 403, 401, 401]
