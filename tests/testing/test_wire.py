from __future__ import annotations

import asyncio
import socket
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.testing import Truncated, wire
from gateway.testing.wire import Head, encode_chunk, encode_head, free_ports, read_body, read_head


def _reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def _message(data: bytes, *, until_close: bool = False) -> tuple[Head, bytes]:
    reader = _reader(data)
    head = await read_head(reader)
    assert head is not None
    return head, b"".join([piece async for piece in read_body(reader, head, until_close=until_close)])


_FIELDS = st.lists(
    st.tuples(
        st.text("abcXYZ-", min_size=1),
        st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Z"]), max_size=9),
    )
)


@given(_FIELDS, st.lists(st.binary(min_size=1)))
def test_what_is_encoded_is_read_back(fields: list[tuple[str, str]], pieces: list[bytes]) -> None:
    fields = [(name, value.strip()) for name, value in fields]
    body = b"".join(map(encode_chunk, [*pieces, b""]))
    data = encode_head("POST / HTTP/1.1", [("Transfer-Encoding", "chunked"), *fields]) + body
    head, joined = asyncio.run(_message(data))
    assert head.headers[1:] == fields
    assert joined == b"".join(pieces)


async def test_a_closed_connection_has_no_next_head() -> None:
    assert await read_head(_reader(b"")) is None


async def test_a_body_without_length_ends_with_the_connection_in_replies_only() -> None:
    assert (await _message(b"HTTP/1.1 200 OK\r\n\r\nrest", until_close=True))[1] == b"rest"
    assert (await _message(b"GET / HTTP/1.1\r\n\r\nrest"))[1] == b""


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
)
async def test_a_message_cut_anywhere_is_truncated(data: bytes) -> None:
    with pytest.raises(Truncated) as caught:
        await _message(data, until_close=True)
    assert caught.value.how == "closed"


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_port_somebody_listens_on_is_not_free() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        assert port not in (each for _ in range(wire._SHARE) for each in free_ports(1))


def test_workers_of_one_run_are_given_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "a run")
    given: set[int] = set()
    for worker in range(10):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{worker}")
        given.update(islice(wire._share(), 2 * wire._SHARE))
    assert len(given) == 10 * wire._SHARE
