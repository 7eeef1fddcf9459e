"""Google's tokens, by google-auth: a blocking library, so it runs in a thread."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.bearer import TokenRefused
from gateway.secret import Secret

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_UNTOLD = 300.0  # seconds a token is used that does not say when it ends


class GoogleToken:
    """Fetches tokens of a service account or of the application default credentials.

    Raises ``ValueError`` when the key is none. google-auth is imported with the first fetch.
    """

    def __init__(self, key: Secret | None) -> None:
        self._key = key
        self._credentials: Any = None
        self._made_of = ""
        if key is not None:
            _info(key.reveal())

    async def fetch(self) -> tuple[str, float]:
        """A token and the seconds it is good for. Raises ``TokenRefused``."""
        return await asyncio.to_thread(self._refresh)

    def _refresh(self) -> tuple[str, float]:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            if self._key is None:
                credentials = self._default()
            else:
                credentials = self._service_account(self._key.reveal())
            credentials.refresh(Request())
        except (GoogleAuthError, ValueError, OSError) as error:
            raise TokenRefused(_reason(error)) from None
        ends = credentials.expiry
        lifetime = _UNTOLD if ends is None else (ends.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        return str(credentials.token), max(1.0, lifetime)

    def _default(self) -> Any:
        import google.auth

        if self._credentials is None:
            self._credentials, _ = google.auth.default(scopes=SCOPES)
        return self._credentials

    def _service_account(self, key: str) -> Any:
        from google.oauth2 import service_account

        if key != self._made_of:  # the first time, and when the file has been replaced
            info = _info(key)
            make = service_account.Credentials.from_service_account_info
            self._credentials = make(info, scopes=SCOPES)
            self._made_of = key
        return self._credentials


def _info(key: str) -> dict[str, Any]:
    try:
        info = orjson.loads(key)
    except ValueError:
        info = None
    if not isinstance(info, dict) or info.get("type") != "service_account":
        raise ValueError(
            "credentials: expected the JSON key of a service account. Credentials of other types are used as the "
            "application default (GOOGLE_APPLICATION_CREDENTIALS)."
        )
    return info


def _reason(error: Exception) -> str:
    """What kind of failure, and the name OAuth has for it; texts may quote what was sent."""
    told = error.args[1] if len(error.args) > 1 else None
    name = told.get("error") if isinstance(told, dict) else None
    return f"{type(error).__name__} {name}." if isinstance(name, str) and name.isidentifier() else type(error).__name__
