"""Requests whose framing two servers may read differently: the parser corpus of R01.

``direct`` and ``nginx`` say what has to happen on each way in: ``refused`` (an error or a closed connection, nothing
forwarded, connection closed) or ``accepted`` (forwarded once, with this body). nginx rewrites a few harmless forms
(bare line feeds) into clean ones, so what is refused directly may be accepted behind it.
"""

from __future__ import annotations

from typing import Literal

import attrs

Verdict = Literal["refused", "accepted"]
BODY = b'{"model":"m","messages":[{"role":"user","content":"payload"}]}'
# What a server that disagrees about the end of the first request would take for a second one.
_HIDDEN = b"POST /v1/chat/completions?smuggled HTTP/1.1\r\nHost: @HOST\r\nContent-Length: 0\r\n\r\n"
_LENGTH = b"Content-Length: %d" % len(BODY)
_CHUNKED = b"Transfer-Encoding: chunked"
_IN_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@attrs.frozen
class Payload:
    name: str
    data: bytes
    direct: Verdict = "refused"
    nginx: Verdict = "refused"

    def bytes_for(self, host: str, key: str) -> bytes:
        return self.data.replace(b"@HOST", host.encode()).replace(b"@KEY", key.encode())


def _post(
    *headers: bytes,
    body: bytes = b"",
    line: bytes = b"POST /v1/chat/completions HTTP/1.1",
    host: bytes | None = b"Host: @HOST",
    eol: bytes = b"\r\n",
) -> bytes:
    fixed = [b"Authorization: Bearer @KEY", b"Content-Type: application/json"]
    return eol.join([line, *([host] if host is not None else []), *fixed, *headers, b"", b""]) + body


def _length(value: bytes) -> bytes:
    return _post(b"Content-Length: " + value, body=BODY)


def _coding(*headers: bytes) -> bytes:
    return _post(*headers, body=_IN_CHUNKS)


def _chunks(body: bytes) -> bytes:
    return _post(_CHUNKED, body=body)


def _line(line: bytes) -> bytes:
    return _post(_LENGTH, body=BODY, line=line)


def _header(header: bytes) -> bytes:
    return _post(header, _LENGTH, body=BODY)


_SIZE = b"%x" % len(BODY)
REFUSED = (
    Payload("length then coding", _post(b"Content-Length: 4", _CHUNKED, body=_IN_CHUNKS)),
    Payload("coding then length", _post(_CHUNKED, b"Content-Length: 4", body=_IN_CHUNKS)),
    Payload(
        "coding that ends early then hidden request",
        _post(_CHUNKED, b"Content-Length: 200", body=b"0\r\n\r\n" + _HIDDEN),
    ),
    Payload("length twice, same", _post(_LENGTH, _LENGTH, body=BODY)),
    Payload("length twice, different", _post(b"Content-Length: 0", _LENGTH, body=BODY)),
    Payload("length list, same", _length(b"%d, %d" % (len(BODY), len(BODY)))),
    Payload("length list, different", _length(b"0, %d" % len(BODY))),
    Payload("length with plus", _length(b"+%d" % len(BODY))),
    Payload("length negative", _length(b"-1")),
    Payload("length in hexadecimal", _length(b"0x3e")),
    Payload("length with underscore", _length(b"6_2")),
    Payload("length with inner space", _length(b"6 2")),
    Payload("length empty", _length(b"")),
    Payload("length beyond 64 bits", _length(b"18446744073709551678")),
    Payload("length with non-ASCII digits", _length(b"\xd9\xa6\xd9\xa2")),
    Payload("coding xchunked", _coding(b"Transfer-Encoding: xchunked")),
    Payload("coding chunked, identity", _coding(b"Transfer-Encoding: chunked, identity")),
    Payload("coding chunked, chunked", _coding(b"Transfer-Encoding: chunked, chunked")),
    Payload("coding header twice", _coding(_CHUNKED, _CHUNKED)),
    Payload("coding identity", _coding(b"Transfer-Encoding: identity")),
    Payload("coding gzip", _coding(b"Transfer-Encoding: gzip")),
    Payload("coding gzip, chunked", _coding(b"Transfer-Encoding: gzip, chunked")),
    Payload("coding with vertical tab before", _coding(b"Transfer-Encoding: \x0bchunked")),
    Payload("coding with form feed after", _coding(b"Transfer-Encoding: chunked\x0c")),
    Payload("coding quoted", _coding(b'Transfer-Encoding: "chunked"')),
    Payload("coding with parameter", _coding(b"Transfer-Encoding: chunked;q=1")),
    Payload("coding with space before colon", _coding(b"Transfer-Encoding : chunked")),
    Payload("length with space before colon", _post(b"Content-Length : %d" % len(BODY), body=BODY)),
    Payload("coding folded onto the next line", _coding(b"Transfer-Encoding:\r\n chunked")),
    Payload("coding in HTTP/1.0", _post(_CHUNKED, body=_IN_CHUNKS, line=b"POST /v1/chat/completions HTTP/1.0")),
    Payload("chunk size 0x", _chunks(b"0x" + _IN_CHUNKS)),
    Payload("chunk size plus", _chunks(b"+" + _IN_CHUNKS)),
    Payload("chunk size minus", _chunks(b"-" + _IN_CHUNKS)),
    Payload("chunk size beyond 64 bits", _chunks(b"1" + b"0" * 16 + _IN_CHUNKS)),
    Payload("chunk size with underscore", _chunks(b"3_e\r\n" + BODY + b"\r\n0\r\n\r\n")),
    Payload("chunk without its end", _chunks(_SIZE + b"\r\n" + BODY + b"XX0\r\n\r\n")),
    Payload("chunk shorter than its data", _chunks(b"3\r\n" + BODY + b"\r\n0\r\n\r\n")),
    Payload("header folded", _header(b"X-A: 1\r\n 2")),
    Payload("first header indented", _post(_LENGTH, body=BODY, host=b" Host: @HOST")),
    Payload("header without name", _header(b": 1")),
    Payload("header with NUL in value", _header(b"X-A: a\x00b")),
    Payload("header with CR in value", _header(b"X-A: a\rb")),
    Payload("header with CR before hidden header", _header(b"X-A: a\rContent-Length: 0")),
    Payload("header with NUL in name", _header(b"X-\x00A: 1")),
    Payload("host twice", _header(b"Host: other.example.com")),
    Payload("host missing", _post(_LENGTH, body=BODY, host=None)),
    Payload("host with path and fragment", _post(_LENGTH, body=BODY, host=b"Host: @HOST/#")),
    Payload("host with user part", _post(_LENGTH, body=BODY, host=b"Host: user@@HOST")),
    Payload("host with query", _post(_LENGTH, body=BODY, host=b"Host: @HOST?")),
    Payload("host list", _post(_LENGTH, body=BODY, host=b"Host: @HOST, other.example.com")),
    Payload("absolute target, foreign authority", _line(b"POST http://evil.test/v1/chat/completions HTTP/1.1")),
    Payload("HTTP/2.0", _line(b"POST /v1/chat/completions HTTP/2.0")),
    Payload("version in lower case", _line(b"POST /v1/chat/completions http/1.1")),
    Payload("HTTP/0.9", _line(b"POST /v1/chat/completions HTTP/0.9")),
    Payload("version missing", _line(b"POST /v1/chat/completions")),
    Payload("target with space", _line(b"POST /v1/chat completions HTTP/1.1")),
    Payload("target without slash", _line(b"POST v1/chat/completions HTTP/1.1")),
    Payload("target with NUL", _line(b"POST /v1/chat/\x00completions HTTP/1.1")),
    Payload("method with colon", _line(b"PO:ST /v1/chat/completions HTTP/1.1")),
    Payload("target of all", _post(b"Content-Length: 0", line=b"OPTIONS * HTTP/1.1")),
    Payload("method connect", _post(b"Content-Length: 0", line=b"CONNECT evil.test:443 HTTP/1.1")),
)
# Refused directly; nginx makes them clean and goes on.
NORMALISED = (
    Payload("header without colon", _header(b"X-A"), nginx="accepted"),
    Payload("HTTP/1.15", _line(b"POST /v1/chat/completions HTTP/1.15"), nginx="accepted"),
    Payload(
        "trailer that is a framing header",
        _chunks(_IN_CHUNKS[:-2] + b"Content-Length: 0\r\n\r\n"),
        nginx="accepted",
    ),
    Payload("head with bare line feeds", _post(_LENGTH, body=BODY, eol=b"\n"), nginx="accepted"),
    Payload("chunks with bare line feeds", _chunks(_IN_CHUNKS.replace(b"\r\n", b"\n")), nginx="accepted"),
)
# White space RFC 9110 section 5.5 allows and nginx 1.22 does not take off.
STRICTER_NGINX = (
    Payload("length after tab", _length(b"\t%d" % len(BODY)).replace(b": \t", b":\t"), direct="accepted"),
    Payload("length before blanks", _length(b"%d \t" % len(BODY)), direct="accepted"),
    Payload("coding after tab", _coding(b"Transfer-Encoding:\tchunked"), direct="accepted"),
)
ACCEPTED = tuple(
    Payload(name, data, direct="accepted", nginx="accepted")
    for name, data in (
        ("plain", _post(_LENGTH, body=BODY)),
        ("chunked", _coding(_CHUNKED)),
        ("length in other case", _post(b"cOnTeNt-LeNgTh: %d" % len(BODY), body=BODY)),
        ("length with leading zeros", _length(b"000%d" % len(BODY))),
        ("coding in other case", _coding(b"TRANSFER-encoding: Chunked")),
        ("chunk extensions", _chunks(_SIZE + b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n")),
        ("chunk size in capitals with zeros", _chunks(b"000" + _SIZE.upper() + b"\r\n" + BODY + b"\r\n0\r\n\r\n")),
        ("trailers", _chunks(_IN_CHUNKS[:-2] + b"X-Trailer: 1\r\n\r\n")),
        ("length with expect", _post(_LENGTH, b"Expect: 100-continue", body=BODY)),
        ("blank line before", b"\r\n" + _post(_LENGTH, body=BODY)),
        ("connection close", _post(_LENGTH, b"Connection: close", body=BODY)),
    )
)
CORPUS = (*REFUSED, *NORMALISED, *STRICTER_NGINX, *ACCEPTED)
