"""AWS Signature Version 4 through botocore, which is imported by whoever makes a ``Signer`` and nobody else.

Signing a short request is arithmetic (0.05 ms) and done at once. What may wait is done in a thread: finding and
renewing credentials (files, processes, HTTP to the instance's metadata), and the hash of a large body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import attrs

from gateway.errors import UpstreamUnreachable
from gateway.secret import Secret

_AT_ONCE = 1 << 17  # bytes of a body: hashed in 0.2 ms; 10 MB take 12 ms


@attrs.frozen
class Keys:
    """Credentials from the configuration; without them botocore's default chain looks for some."""

    access_key: Secret
    secret_key: Secret
    session_token: Secret | None = None


class Signer:
    """Signs requests of one service in one region. Raises ``RuntimeError`` where botocore is not installed."""

    def __init__(self, region: str, service: str, keys: Keys | None = None) -> None:
        try:
            import botocore.auth
            import botocore.session  # noqa: F401 - now, not while a request waits
        except ImportError as error:
            raise RuntimeError("requests are signed with botocore: pip install 'hookgate[bedrock]'") from error
        self._region = region
        self._service = service
        self._keys = keys
        self._found: Any = None
        self._looking = asyncio.Lock()

    async def headers(self, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, str]:
        """The headers that sign a request, to be sent with ``headers``, which they cover.

        ``url`` is percent-encoded as it is sent. Raises ``UpstreamUnreachable`` where there are no credentials.
        """
        credentials = await self._credentials()
        work = (credentials, self._region, self._service, method, url, headers, body, datetime.now(UTC))
        return sign(*work) if len(body) <= _AT_ONCE else await asyncio.to_thread(sign, *work)

    async def _credentials(self) -> Any:
        if self._keys is not None:
            return _frozen(self._keys)
        if self._stale():
            async with self._looking:  # one of many that find them stale renews them
                if self._stale():
                    await asyncio.to_thread(self._renew)
        return self._found.get_frozen_credentials()

    def _stale(self) -> bool:
        return self._found is None or (hasattr(self._found, "refresh_needed") and self._found.refresh_needed())

    def _renew(self) -> None:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        try:
            found = self._found or Session().get_credentials()
            if found is not None:
                found.get_frozen_credentials()
        except BotoCoreError as error:
            raise UpstreamUnreachable("The provider's credentials cannot be renewed.", sent=False) from error
        if found is None:
            raise UpstreamUnreachable("There are no credentials for the provider.", sent=False)
        self._found = found


def _frozen(keys: Keys) -> Any:
    from botocore.credentials import ReadOnlyCredentials

    token = keys.session_token.reveal() if keys.session_token is not None else None
    return ReadOnlyCredentials(keys.access_key.reveal(), keys.secret_key.reveal(), token)


def sign(
    credentials: Any,
    region: str,
    service: str,
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    moment: datetime,
) -> dict[str, str]:
    """``Authorization``, ``X-Amz-Date`` and, for temporary credentials, ``X-Amz-Security-Token``.

    The service's "canonical URI" is the path encoded once more than it is sent; botocore does that.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    auth = SigV4Auth(credentials, service, region)
    request = AWSRequest(method, url, data=body)
    added = {"X-Amz-Date": moment.strftime("%Y%m%dT%H%M%SZ")}
    if credentials.token:
        added["X-Amz-Security-Token"] = credentials.token
    for name, value in (*headers, *added.items()):
        request.headers.add_header(name, value)
    request.context["timestamp"] = added["X-Amz-Date"]
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    signed = auth.signed_headers(auth.headers_to_sign(request))
    added["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={signed}, Signature={signature}"
    )
    return added
