from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.tails import safe_tail

LEAVING = [
    "..", "../admin", "a/../../admin", "%2e%2e/admin", "%2E%2e%2fadmin", "a/%2e%2e/b", "%252e%252e/admin", ".", "a/./b",
    "/evil.test/x", "a//b", "%2f%2fevil.test", "a\\b", "..\\admin", "%5c..%5cadmin", "a?b", "a%3fb", "a#b", "a%23b",
    "a%00b", "a%0d%0ab", "%25252e%25252e/x",
]  # fmt: skip


@pytest.mark.parametrize("tail", LEAVING)
def test_r05_tails_that_could_leave_the_base_are_refused(tail: str) -> None:
    with pytest.raises(InvalidRequest):
        safe_tail(tail)


@pytest.mark.parametrize(
    "tail", ["models", "models/gpt-4o", "models/meta%2Fllama", "files/a%20b", "x/", "a:b", "fine..tuned"]
)
def test_tails_of_real_clients_pass_unchanged(tail: str) -> None:
    assert safe_tail(tail) == f"/{tail}"


@given(st.text(alphabet="./%25\\eE2fab", max_size=24))
def test_r05_whatever_passes_stays_below_the_base(tail: str) -> None:
    try:
        path = "/v1" + safe_tail(tail)
    except InvalidRequest:
        return
    for _ in range(4):
        depth = 0
        for part in path.replace("\\", "/").split("/")[2:]:
            depth += {"..": -1, ".": 0}.get(part, 1)
            assert depth >= 0
        path = unquote(path)
