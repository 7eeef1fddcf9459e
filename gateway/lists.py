"""The providers' lists of models, asked for over the shared connector and kept for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from gateway.errors import UpstreamProtocolError


class Lists:
    """JSON documents behind ``aiohttp_client_cache``, in memory, apart by URL and request headers (whose key it is)."""

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector
        self._session: Any = None

    def _opened(self) -> Any:
        if self._session is None:
            # Imported here: nobody who forwards only should pay for it at start.
            from aiohttp_client_cache.backends.base import CacheBackend
            from aiohttp_client_cache.session import CachedSession

            self._session = CachedSession(
                cache=CacheBackend(allowed_codes=(200,), include_headers=True),
                connector=self._connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def get(
        self, url: URL, headers: Mapping[str, str], ttl: float, *, tls: Any, limits: aiohttp.ClientTimeout, name: str
    ) -> Any:
        """The document at ``url``, up to ``ttl`` seconds old.

        Raises ``UpstreamProtocolError``, in the name of the provider ``name``, for a status but 200; ``ValueError`` for
        what is not JSON; and what aiohttp raises.
        """
        async with self._opened().get(
            url, headers=headers, ssl=tls, timeout=limits, allow_redirects=False, expire_after=ttl
        ) as response:
            if response.status != 200:
                raise UpstreamProtocolError(f"The provider answered {response.status}.", target=name)
            return await response.json(content_type=None)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
