"""Lists of models are asked for once per time to live, and never shared between keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.errors import UpstreamProtocolError
from gateway.lists import Lists
from gateway.testing import ScriptedUpstream, redirect, whole


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(whole(200, {"data": ["m"]}), models=()) as upstream:
        yield upstream


@pytest.fixture
async def lists() -> AsyncIterator[Lists]:
    connector = aiohttp.TCPConnector()
    made = Lists(connector)
    yield made
    await made.close()
    assert not connector.closed, "the connector is shared: it is not the lists' to close"
    await connector.close()


async def get(lists: Lists, provider: ScriptedUpstream, key: str = "a", ttl: float = 60.0) -> Any:
    limits = aiohttp.ClientTimeout(total=5)
    return await lists.get(URL(f"{provider.url}/list"), {"Authorization": key}, ttl, tls=True, limits=limits, name="p")


async def test_a_list_is_kept_for_its_time(lists: Lists, provider: ScriptedUpstream) -> None:
    assert await get(lists, provider, ttl=0.2) == await get(lists, provider, ttl=0.2) == {"data": ["m"]}
    assert len(provider.requests) == 1
    await asyncio.sleep(0.3)
    await get(lists, provider, ttl=0.2)
    assert len(provider.requests) == 2


async def test_a_time_of_zero_asks_every_time(lists: Lists, provider: ScriptedUpstream) -> None:
    for _ in range(2):
        await get(lists, provider, ttl=0.0)
    assert len(provider.requests) == 2


async def test_another_key_sees_its_own_list(lists: Lists, provider: ScriptedUpstream) -> None:
    await get(lists, provider, "a")
    provider.script = whole(200, {"data": ["other"]})
    assert await get(lists, provider, "b") == {"data": ["other"]}
    assert await get(lists, provider, "a") == {"data": ["m"]}


@pytest.mark.parametrize("status", [302, 401, 500])
async def test_a_refusal_is_told_and_not_kept(lists: Lists, provider: ScriptedUpstream, status: int) -> None:
    provider.script = redirect(status, "/elsewhere") if status == 302 else whole(status, {"data": ["wrong"]})
    with pytest.raises(UpstreamProtocolError, match=f"The provider answered {status}"):
        await get(lists, provider)
    provider.script = whole(200, {"data": ["m"]})
    assert await get(lists, provider) == {"data": ["m"]}
    assert [request.target for request in provider.requests] == ["/list", "/list"]


async def test_what_is_not_json_is_a_value_error(lists: Lists, provider: ScriptedUpstream) -> None:
    provider.script = whole(200, b"<html>")
    with pytest.raises(ValueError, match="Expecting value"):
        await get(lists, provider)
