import string

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.headers import to_client, to_upstream

FORBIDDEN = {
    "Authorization": "Bearer k", "x-api-key": "k", "api-key": "k", "x-goog-api-key": "k", "Cookie": "a=b",
    "Proxy-Authorization": "Basic x", "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1", "X-Real-IP": "1.2.3.4",
    "HTTP2-Settings": "x", "TE": "trailers", "Upgrade": "h2c", "X-Secret": "s", "Host": "gw", "Content-Length": "5",
    "Transfer-Encoding": "chunked", "Accept-Encoding": "gzip", "OpenAI-Organization": "org", "OpenAI-Project": "p",
    "X-Amz-Security-Token": "t", "X-Gateway-Internal": "1", "Keep-Alive": "timeout=5", "Expect": "100-continue",
}  # fmt: skip
PASSED = {
    "anthropic-beta": "a,b", "anthropic-version": "2023-06-01", "OpenAI-Beta": "x=1", "Idempotency-Key": "abc",
    "traceparent": "00-1-2-03", "x-stainless-lang": "python", "Content-Type": "application/json", "Accept": "*/*",
}  # fmt: skip


def test_r06_only_listed_request_headers_pass() -> None:
    out = to_upstream(CIMultiDict({**FORBIDDEN, **PASSED, "Connection": "close, X-Secret, anthropic-beta"}))
    assert dict(out) == {name: value for name, value in PASSED.items() if name != "anthropic-beta"}


def test_repeated_headers_pass_each() -> None:
    sent = [("anthropic-beta", "a"), ("anthropic-beta", "b")]
    assert to_upstream(CIMultiDict(sent)) == sent


@given(st.text(alphabet=string.ascii_letters + "-", min_size=1, max_size=20))
def test_r06_a_name_nobody_listed_does_not_pass(name: str) -> None:
    assert not to_upstream(CIMultiDict({f"x-q{name}": "1"}))


def test_r06_what_the_gateway_sets_the_client_cannot() -> None:
    assert to_upstream(CIMultiDict({"Anthropic-Version": "1", "Accept": "*/*"}), {"anthropic-version"}) == [
        ("Accept", "*/*")
    ]


def test_r07_reply_headers_that_are_not_the_clients_do_not_pass() -> None:
    upstream = CIMultiDict({
        "Set-Cookie": "a=b", "X-Accel-Redirect": "/secret", "X-Accel-Buffering": "yes", "X-Sendfile": "/etc/passwd",
        "Server": "gunicorn", "Alt-Svc": "h3", "Connection": "close, X-Hop", "X-Hop": "1",
        "Transfer-Encoding": "chunked",
        "openai-organization": "org-1", "anthropic-organization-id": "o", "Location": "http://elsewhere",
        "Via": "1.1 x",
        "Access-Control-Allow-Origin": "*", "Strict-Transport-Security": "x", "Content-Length": "5", "Date": "x",
        "Content-Type": "application/json", "x-ratelimit-remaining-requests": "9", "openai-processing-ms": "12",
        "x-request-id": "req_up",
    })  # fmt: skip
    assert dict(to_client(upstream)) == {
        "Content-Type": "application/json",
        "x-ratelimit-remaining-requests": "9",
        "openai-processing-ms": "12",
        "x-upstream-request-id": "req_up",
    }
