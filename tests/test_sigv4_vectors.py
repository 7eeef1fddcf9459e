"""AWS's own Signature Version 4 test suite, through the function that signs our requests.

All 34 cases pass. Those of ``normalize-path`` hold because botocore normalises paths for every service but S3; a path
of ours has nothing to normalise, as a model's name is percent-encoded whole.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.sigv4 import sign
from tests.support.programs import recorded_data

credentials = pytest.importorskip("botocore.credentials", reason="botocore is not installed")

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
CASES = (
    "get-header-key-duplicate", "get-header-value-multiline", "get-header-value-order", "get-header-value-trim",
    "get-unreserved", "get-utf8", "get-vanilla", "get-vanilla-empty-query-key", "get-vanilla-query",
    "get-vanilla-query-order-encoded", "get-vanilla-query-order-key", "get-vanilla-query-order-key-case",
    "get-vanilla-query-order-value", "get-vanilla-query-unreserved", "get-vanilla-utf8-query",
    "get-vanilla-with-session-token", "post-header-key-case", "post-header-key-sort", "post-header-value-case",
    "post-vanilla", "post-vanilla-empty-query-value", "post-vanilla-query", "post-x-www-form-urlencoded",
    "post-x-www-form-urlencoded-parameters", "post-sts-token/post-sts-header-after",
    "post-sts-token/post-sts-header-before", "normalize-path/get-relative", "normalize-path/get-relative-relative",
    "normalize-path/get-slash", "normalize-path/get-slash-dot-slash", "normalize-path/get-slash-pointless-dot",
    "normalize-path/get-slashes", "normalize-path/get-space", "normalize-path/get-special-character",
)  # fmt: skip


def parsed(raw: str) -> tuple[str, str, list[tuple[str, str]], str]:
    """Method, target, headers and body of a request file; a line that begins with white space continues a header."""
    head, _, body = raw.partition("\n\n")
    start, *lines = head.rstrip("\n").split("\n")
    method, rest = start.split(" ", 1)
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line[0] in " \t":
            headers[-1] = (headers[-1][0], f"{headers[-1][1]}\n{line}")
        else:
            name, _, value = line.partition(":")
            headers.append((name, value))
    return method, rest.rsplit(" ", 1)[0], headers, body


@pytest.fixture(scope="module")
def vectors() -> Path:
    folder = recorded_data() / "sigv4"
    if not folder.is_dir():
        pytest.skip(f"no signature test suite in {folder}")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_vector(vectors: Path, case: str) -> None:
    file = vectors / case / case.rpartition("/")[2]
    method, target, headers, body = parsed(file.with_suffix(".req").read_text())
    # The token of temporary credentials is part of what is signed where the canonical request has it.
    canonical = dict(line.partition(":")[::2] for line in file.with_suffix(".creq").read_text().splitlines())
    found = credentials.ReadOnlyCredentials("AKIDEXAMPLE", SECRET, canonical.get("x-amz-security-token"))
    ours = ("x-amz-date", "x-amz-security-token")
    kept = [(name, value) for name, value in headers if name.lower() not in ours]
    path, mark, query = target.partition("?")
    # Queries are signed as they are sent, and what is sent is ASCII; botocore encodes the path itself.
    url = f"https://example.amazonaws.com{path}{mark}{quote(query, safe='%=&-_.~')}"
    made = sign(found, "us-east-1", "service", method, url, kept, body.encode(), MOMENT)
    assert made["Authorization"] == file.with_suffix(".authz").read_text()


def test_no_case_is_left_out(vectors: Path) -> None:
    assert {str(file.parent.relative_to(vectors)) for file in vectors.rglob("*.req")} == set(CASES)
