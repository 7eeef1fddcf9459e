import inspect
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from gateway import errors


def concrete() -> list[type[errors.GatewayError]]:
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.GatewayError)]
    return sorted(found, key=lambda cls: cls.__name__)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    for cls in concrete():
        assert cls.__name__ in (errors.__doc__ or "")
        assert cls.__doc__


_KEY: Any = SimpleNamespace(host="h", port=443, is_ssl=True, ssl=True)  # what aiohttp's errors say of an address


@pytest.mark.parametrize(
    ("foreign", "ours", "status", "sent"),
    [
        (aiohttp.ServerDisconnectedError(), errors.UpstreamUnreachable, 502, True),
        (aiohttp.ClientPayloadError(), errors.UpstreamProtocolError, 502, True),
        (aiohttp.InvalidURL("x"), errors.UpstreamProtocolError, 502, False),
        (aiohttp.ClientConnectorError(_KEY, OSError(111, "refused")), errors.UpstreamUnreachable, 502, False),
        (aiohttp.ClientConnectorDNSError(_KEY, OSError(-2, "unknown")), errors.UpstreamUnreachable, 502, False),
        (aiohttp.ClientConnectorSSLError(_KEY, ssl.SSLError(1, "no")), errors.UpstreamUnreachable, 502, False),
        (aiohttp.ClientConnectorCertificateError(_KEY, ssl.CertificateError()), errors.UpstreamUnreachable, 502, False),
        (aiohttp.ClientOSError(104, "reset"), errors.UpstreamUnreachable, 502, True),
        (TimeoutError(), errors.UpstreamTimeout, 504, True),
        (aiohttp.SocketTimeoutError(), errors.UpstreamTimeout, 504, True),
        (aiohttp.ConnectionTimeoutError(), errors.UpstreamTimeout, 504, False),
        (ssl.SSLError(), errors.UpstreamUnreachable, 502, True),
        (ConnectionResetError(), errors.UpstreamUnreachable, 502, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_r46_foreign_errors_become_ours_and_tell_whether_anything_was_sent(
    foreign: Exception, ours: type[errors.UpstreamError], status: int, sent: bool
) -> None:
    mapped = errors.from_upstream(foreign, "p/m")
    assert type(mapped) is ours and mapped.http_status == status and mapped.target == "p/m"
    assert mapped.sent is sent


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
