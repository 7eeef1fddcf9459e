import inspect
import ssl

import aiohttp
import orjson
import pytest

from gateway import errors


def concrete() -> list[type[errors.GatewayError]]:
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.GatewayError)]
    return sorted(found, key=lambda cls: cls.__name__)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    for cls in concrete():
        assert cls.__name__ in (errors.__doc__ or "")
        assert cls.__doc__


@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses"])
def test_r62_every_error_has_one_shape(dialect: str) -> None:
    for kind in (errors.InvalidRequest, errors.RateLimited, errors.UpstreamTimeout, errors.Overloaded):
        body = orjson.loads(errors.render_body(kind("m"), dialect, "rid"))["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert "rid" in body["message"]


def test_r28_the_error_event_is_no_success_marker() -> None:
    event = errors.render_event(errors.StreamInterrupted("broke"), "openai_chat", "rid")
    assert event.startswith(b"data: {") and event.endswith(b"}\n\n") and b"[DONE]" not in event
    event = errors.render_event(errors.StreamInterrupted("broke"), "openai_responses", "rid")
    assert event.startswith(b"event: error\n") and b"completed" not in event


@pytest.mark.parametrize(
    ("foreign", "ours", "status"),
    [
        (aiohttp.ServerDisconnectedError(), errors.UpstreamUnreachable, 502),
        (aiohttp.ClientPayloadError(), errors.UpstreamProtocolError, 502),
        (TimeoutError(), errors.UpstreamTimeout, 504),
        (aiohttp.ConnectionTimeoutError(), errors.UpstreamTimeout, 504),
        (ssl.SSLError(), errors.UpstreamUnreachable, 502),
        (ConnectionResetError(), errors.UpstreamUnreachable, 502),
    ],
)
def test_foreign_errors_become_ours(foreign: Exception, ours: type[errors.UpstreamError], status: int) -> None:
    mapped = errors.from_upstream(foreign, "p/m")
    assert type(mapped) is ours and mapped.http_status == status and mapped.target == "p/m"


def test_what_the_table_does_not_know_is_raised() -> None:
    with pytest.raises(KeyError):
        errors.from_upstream(KeyError("x"))


@pytest.mark.parametrize(
    ("upstream", "client"), [(400, 400), (404, 404), (429, 429), (500, 500), (401, 502), (403, 502)]
)
def test_a_refused_credential_of_ours_is_never_the_clients(upstream: int, client: int) -> None:
    assert errors.UpstreamRefused(upstream, b"{}", {}).http_status == client


def test_a_stranger_is_told_nothing() -> None:
    assert errors.Unauthenticated().message == "Missing or invalid API key."
