"""Exchanges made by hand, for plugins that only look at them, and the search for what must not come out."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from gateway import Exchange, Principal, Surface, Target, Usage
from gateway.ids import RequestIds

CANARIES = ("sk-3fK9w2QzLm-7Tb", "Xy7prompt-canary-Xy7", "8d2Pqheader-canary-8d2Pq", "5hJkbody-canary-5hJk")
"""A key, a prompt, a header and an upstream's body: no end of them is a word that may stand somewhere by chance."""
CHAT = Surface("chat", "openai_chat", "/chat/completions")


_ids = RequestIds()


async def _no_body(exchange: Exchange) -> None:
    return None


def make_exchange(
    headers: Mapping[str, str] = {},
    *,
    path: str = "/v1/chat/completions",
    query: str = "",
    method: str = "POST",
    peer: str = "192.0.2.7",
    **more: Any,
) -> Exchange:
    """An exchange as ``on_request`` gets it; ``more`` are attributes to set."""
    url = SimpleNamespace(raw_path=path, raw_query_string=query)
    content = SimpleNamespace(is_eof=lambda: False)  # of the body nothing is here yet
    protocol = SimpleNamespace(peer=peer)
    request = SimpleNamespace(
        method=method, rel_url=url, headers=CIMultiDict(headers), content=content, protocol=protocol
    )
    exchange = Exchange(request, CHAT, _no_body)
    exchange.id = _ids.new()
    for name, value in more.items():
        setattr(exchange, name, value)
    return exchange


def finished_exchange(headers: Mapping[str, str] = {}, **more: Any) -> Exchange:
    """An exchange as ``on_finish`` gets it: answered after 20 ms, first byte after 10, of which 9 at the provider."""
    facts: dict[str, Any] = {
        "id": "req-1", "model": "gpt-4o", "target": Target("openai", "gpt-4o"), "tried": ["openai/gpt-4o"],
        "principal": Principal("alice"), "client_ip": "192.0.2.7", "status": 200, "cache": "miss", "reply_bytes": 321,
        "usage": Usage(10, 20), "upstream_seconds": 0.009,
    }  # fmt: skip
    exchange = make_exchange(headers, **facts | more)
    if "first_byte" not in more:
        exchange.first_byte = exchange.started + 0.010
    exchange.finished = exchange.started + 0.020
    return exchange


def make_runtime(**parts: Any) -> Any:
    """What the observers use of a ``Runtime``; ``parts`` replace or add attributes."""
    own = {
        "registry": CollectorRegistry(),
        "admin_routes": [],
        "keep": lambda key, make: make(),
        "redis": None,
        "keys": None,
    }
    return SimpleNamespace(**own | parts)


def disguises(secret: str) -> Iterator[bytes]:
    """The forms in which ``secret`` may leak: plain, percent-encoded, hex, base64 at any offset, its ends."""
    plain = secret.encode()
    yield plain
    yield plain[:8]
    yield plain[-8:]
    yield quote(secret, safe="").encode()
    yield plain.hex().encode()
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + plain)
        # The outermost digits mix with the neighbouring bytes.
        yield whole[4 if offset else 0 : len(whole) - 4]
