"""R05: a pass-through path cannot leave the provider's base path or host."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from gateway.testing import RawClient, ScriptedUpstream, whole
from tests.integration.conftest import KEY, SECRET, Door

BASE = "/base/v1/"
TAILS = [
    "../admin", "../../admin", "./../admin", "a/../../admin", "..", ".", "a/..", "a/.", "%2e%2e/admin",
    "%2E%2E/admin", ".%2e/admin", "%2e./admin", "..%2fadmin", "..%2Fadmin", "%2e%2e%2fadmin", "%252e%252e/admin",
    "%252e%252e%252fadmin", "%25252e%25252e/admin", "..%5cadmin", "..\\admin", "%5c..%5cadmin", "/admin",
    "//evil.test/x", "%2fadmin", "%2f%2fevil.test/x", "\\\\evil.test/x", "@evil.test/x", ":80@evil.test/x", "a%00b",
    "a%0d%0aX-A:%201", "a%3f/../b", "a%23b", "..;/admin", "a;/../b", "http://evil.test/x", "a//b", "a/%2e%2e",
    "%c0%ae%c0%ae/admin", "%u002e%u002e/admin",
]  # fmt: skip


def _leaves(target: str) -> bool:
    """Any reading of the path, decoded up to three times, steps out of the base."""
    for _ in range(4):
        path = target.partition("?")[0].replace("\\", "/")
        if (
            not path.startswith(BASE)
            or {".", "..", ""} & set(path[len(BASE) :].split("/")[:-1])
            or path.endswith(("/.", "/.."))
        ):
            return True
        target = unquote(target)
    return False


@pytest.mark.parametrize("mount", ["/v1/", "/v1/files/", "/v1/batches/", "/p/stub/"])
@pytest.mark.parametrize("tail", TAILS)
async def test_r05_a_tail_stays_below_the_base(door: Door, upstream: ScriptedUpstream, mount: str, tail: str) -> None:
    upstream.script = whole(200, {"ok": True})
    async with RawClient(door.url, host=door.host) as client:
        await client.request("GET", mount + tail, {"Authorization": f"Bearer {KEY}", "Connection": "close"})
        status = int((await client.read_head()).start.split(" ")[1])
    assert status in (200, 400, 404), status
    assert (status == 200) >= bool(upstream.calls)
    for request in upstream.requests:
        assert not _leaves(request.target), request.target
        assert request.header("host") == f"127.0.0.1:{upstream.port}"
        assert request.header("authorization") == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "tail", ["batches/b%2F1", "threads/a%20b", "x/%E2%82%AC", "responses/r?include=a%2Fb&x=1", "a/b/c/"]
)
async def test_r05_an_honest_tail_arrives_as_it_was_sent(door: Door, upstream: ScriptedUpstream, tail: str) -> None:
    upstream.script = whole(200, {"ok": True})
    assert (await door.fetch(f"/v1/{tail}")).status == 200
    assert upstream.calls[0].target == BASE + tail
