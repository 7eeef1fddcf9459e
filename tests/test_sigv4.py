"""Signing: where credentials come from and when they are renewed; AWS's own tests are in ``test_sigv4_vectors``."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import UpstreamUnreachable
from gateway.secret import Secret
from gateway.sigv4 import Keys, Signer, sign

credentials = pytest.importorskip("botocore.credentials", reason="botocore is not installed")

URL = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a.b-v1%3A0/converse"
HEADERS = [("Content-Type", "application/json")]
FIXED = credentials.ReadOnlyCredentials("AKIDEXAMPLE", "secret", None)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def key_of(signed: dict[str, str]) -> str:
    return signed["Authorization"].split("Credential=")[1].split("/")[0]


def test_a_path_is_encoded_once_in_the_url_and_twice_in_what_is_signed() -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest("POST", URL, data=b"{}")
    canonical = SigV4Auth(FIXED, "bedrock", "us-east-1").canonical_request(request)
    assert canonical.splitlines()[1] == "/model/a.b-v1%253A0/converse"


def test_botocore_s_own_way_gives_the_same_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth
    from botocore.awsrequest import AWSRequest

    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: MOMENT)
    temporary = credentials.ReadOnlyCredentials("AKIDEXAMPLE", "secret", "token")
    request = AWSRequest("POST", URL, data=b'{"a":1}', headers=dict(HEADERS))
    botocore.auth.SigV4Auth(temporary, "bedrock", "us-east-1").add_auth(request)
    made = sign(temporary, "us-east-1", "bedrock", "POST", URL, HEADERS, b'{"a":1}', MOMENT)
    assert made == {name: request.headers[name] for name in ("X-Amz-Date", "X-Amz-Security-Token", "Authorization")}


async def test_configured_keys_follow_their_secrets() -> None:
    value = "AKIDONE"
    keys = Keys(Secret(lambda: value), Secret("secret"), Secret("token"))
    signer = Signer("us-east-1", "bedrock", keys)
    first = await signer.headers("POST", URL, HEADERS, b"{}")
    assert (key_of(first), first["X-Amz-Security-Token"]) == ("AKIDONE", "token")
    value = "AKIDTWO"
    assert key_of(await signer.headers("POST", URL, HEADERS, b"{}")) == "AKIDTWO"


async def test_a_large_body_is_signed_like_a_small_one() -> None:
    signer = Signer("us-east-1", "bedrock", Keys(Secret("AKIDEXAMPLE"), Secret("secret")))
    body = b"x" * (1 << 20)
    made = await signer.headers("POST", URL, HEADERS, body)
    moment = datetime.strptime(made["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert made == sign(FIXED, "us-east-1", "bedrock", "POST", URL, HEADERS, body, moment)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without credentials."""
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


async def test_where_there_are_no_credentials_another_target_may_be_tried(nowhere: Path) -> None:
    with pytest.raises(UpstreamUnreachable, match="no credentials") as caught:
        await Signer("us-east-1", "bedrock").headers("POST", URL, HEADERS, b"{}")
    assert caught.value.fallback and not caught.value.sent


async def test_a_profile_is_found_also_later(nowhere: Path) -> None:
    signer = Signer("us-east-1", "bedrock")
    with pytest.raises(UpstreamUnreachable):
        await signer.headers("POST", URL, HEADERS, b"{}")
    (nowhere / "credentials").write_text("[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = s\n")
    assert key_of(await signer.headers("POST", URL, HEADERS, b"{}")) == "AKIDFILE"


class Renewing:
    """Botocore's own renewable credentials, which expire when the test says so and note who renews them."""

    def __init__(self) -> None:
        self.threads: list[Any] = []
        self.now = datetime.now(UTC)
        self.found = credentials.RefreshableCredentials(
            "AKID0", "s", "t", self.now + timedelta(hours=1), self._renew, "test", time_fetcher=lambda: self.now
        )

    def _renew(self) -> dict[str, str]:
        self.threads.append(threading.current_thread())
        expiry = (self.now + timedelta(hours=1)).isoformat()
        return {"access_key": f"AKID{len(self.threads)}", "secret_key": "s", "token": "t", "expiry_time": expiry}


async def test_credentials_are_renewed_once_and_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    renewing = Renewing()
    monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda self: renewing.found)
    signer = Signer("us-east-1", "bedrock")

    async def keys(count: int) -> set[str]:
        made = await asyncio.gather(*(signer.headers("POST", URL, HEADERS, b"{}") for _ in range(count)))
        return {key_of(each) for each in made}

    assert await keys(5) == {"AKID0"}
    renewing.now += timedelta(minutes=59)
    assert await keys(20) == {"AKID1"}
    assert len(renewing.threads) == 1 and renewing.threads[0] is not threading.main_thread()


async def test_credentials_that_cannot_be_renewed(nowhere: Path) -> None:
    (nowhere / "config").write_text("[default]\ncredential_process = false\n")
    with pytest.raises(UpstreamUnreachable, match="cannot be renewed"):
        await Signer("us-east-1", "bedrock").headers("POST", URL, HEADERS, b"{}")
