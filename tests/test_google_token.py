"""What is taken for a service account's key. Fetching is tested with the vertex provider."""

from __future__ import annotations

import pytest

from gateway.google_token import GoogleToken
from gateway.secret import Secret


@pytest.mark.parametrize("key", ["", "no JSON", "[]", "{}", '{"type":"authorized_user"}'])
def test_what_is_no_service_accounts_key_is_refused_at_start(key: str) -> None:
    with pytest.raises(ValueError, match="service account"):
        GoogleToken(Secret(key))


async def test_a_key_that_is_broken_inside_fails_when_it_is_used() -> None:
    pytest.importorskip("google.auth", reason="google-auth is not installed")
    from gateway.bearer import TokenRefused

    broken = GoogleToken(Secret('{"type":"service_account","private_key":"canary-in-a-key"}'))
    with pytest.raises(TokenRefused) as caught:
        await broken.fetch()
    assert "canary" not in str(caught.value)
