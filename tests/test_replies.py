"""The gateway's own headers, and errors as the answers clients see."""

from __future__ import annotations

import orjson
import pytest

from gateway import errors
from gateway.exchange import Reply, Target
from gateway.replies import error_reply, stamp
from tests.support.exchanges import make_exchange


def test_every_reply_says_who_answered_and_what_it_cost() -> None:
    exchange = make_exchange(id="r-1", target=Target("openai", "gpt-4o"), cache="miss", dropped=["user", "n"])
    exchange.upstream_seconds = -1.0  # as if the exchange had begun a second earlier
    reply = Reply(200, {"X-Request-ID": "theirs", "Server": "nginx", "content-type": "text/plain"})
    stamp(exchange, reply)
    assert 1000 <= float(reply.headers.pop("x-gateway-overhead-ms")) < 2000
    assert sorted((name.lower(), value) for name, value in reply.headers.items()) == [
        ("content-type", "text/plain"),
        ("server", "hookgate"),
        ("x-gateway-cache", "miss"),
        ("x-gateway-dropped", "user, n"),
        ("x-gateway-target", "openai/gpt-4o"),
        ("x-request-id", "r-1"),
    ]


def test_what_there_is_not_has_no_header() -> None:
    reply = Reply(200)
    stamp(make_exchange(id="r-1"), reply)
    assert set(reply.headers) == {"x-request-id", "x-gateway-overhead-ms", "server"}


@pytest.mark.parametrize("model", ["a\r\nx-evil: 1", "é\x7f\u2028", "m" * 10_000])
def test_a_name_a_client_chose_cannot_break_a_head(model: str) -> None:
    reply = Reply(200)
    stamp(make_exchange(id="r-1", target=Target("p", model)), reply)
    value = reply.headers["x-gateway-target"]
    assert value.isascii() and value.isprintable()
    assert len(value) <= 512


def test_an_error_is_told_with_the_request_id() -> None:
    reply = error_reply(make_exchange(id="r-1"), errors.ModelNotFound("No such model."))
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/json"
    assert "r-1" in orjson.loads(reply.body or b"")["error"]["message"]


def test_a_providers_own_refusal_passes_as_it_is() -> None:
    headers = {"content-type": "application/json", "retry-after": "7", "retry-after-ms": "6500"}
    refused = errors.UpstreamRefused(429, b'{"error":"slow"}', headers, retry_after=6.5)
    reply = error_reply(make_exchange(), refused)
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (429, b'{"error":"slow"}', "7")
    assert not {"x-should-retry", "retry-after-ms"} & set(reply.headers)


def test_a_refusal_of_our_key_is_not_passed_on() -> None:
    reply = error_reply(make_exchange(), errors.UpstreamRefused(401, b"bad key sk-1", {"www-authenticate": "Bearer"}))
    assert reply.status == 502
    assert b"sk-1" not in (reply.body or b"")
    assert "www-authenticate" not in reply.headers


def test_sdks_do_not_repeat_what_the_gateway_has_already_tried_elsewhere() -> None:
    for error in (errors.UpstreamTimeout("late"), errors.UpstreamRefused(500, b"{}", {})):
        assert error_reply(make_exchange(), error).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("after", "header"), [(0.2, "1"), (6.6, "7"), (7.1, "8"), (7.0, "7"), (None, None)])
def test_a_time_to_wait_is_whole_seconds_and_never_none(after: float | None, header: str | None) -> None:
    limits = {"x-ratelimit-limit-requests": "60"}
    reply = error_reply(make_exchange(), errors.RateLimited("slow", retry_after=after, headers=limits))
    assert reply.headers.get("retry-after") == header
    assert reply.headers["x-ratelimit-limit-requests"] == "60"
