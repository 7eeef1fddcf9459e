"""Tokens that expire: fetched when first needed, renewed before they end, once for all who wait for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

from gateway.errors import GatewayError, UpstreamError
from gateway.secret import Secret

log = logging.getLogger("hookgate")

EARLY = 300.0
"""Seconds before its end at which a token is renewed, while the old one serves on; less for short-lived ones."""
PAUSE = 10.0
"""Seconds between two tries to renew a token that is still good."""
PATIENCE = 30.0
"""Seconds one try may take."""
_SKEW = 5.0  # seconds before its end from which a token is not sent any more: the request has a way to go

Fetch = Callable[[], Awaitable[tuple[str, float]]]
"""Gets a token and the seconds it is good for. Raises ``TokenRefused`` or an error of ours."""


class TokenRefused(Exception):
    """Whoever gives out tokens said no. The reason is logged: no secret is in it."""


class Token:
    """One provider's token.

    ``spawn`` runs the fetch as a task of its own, so that the caller who leaves does not take it along.
    """

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        spawn: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        """The provider's."""
        self.secret = Secret(lambda: self._value)
        """The token now; empty before the first ``ready()``."""
        self._fetch = fetch
        self._spawn = spawn
        self._clock = clock
        self._value = ""
        self._fetched = self._renew = self._ends = float("-inf")
        self._task: asyncio.Task[bool] | None = None

    def fresh(self) -> bool:
        """There is nothing to do: no need to await ``ready()``."""
        return self._clock() < self._renew

    async def ready(self) -> None:
        """Come back with a token in ``secret``. Waits only where the old one has ended.

        Raises ``UpstreamError`` (502, nothing was sent) when there is none to be had.
        """
        if self._task is None:
            self._task = self._spawn(self._renewed(), f"token of {self.name}")
        if self._clock() < self._ends:
            return
        if not await asyncio.shield(self._task):
            raise UpstreamError("The gateway could not get a token for this provider.", target=self.name, sent=False)

    def refused(self) -> None:
        """The provider does not take the token: the next request gets a new one, unless this one is new."""
        if self._clock() - self._fetched > PAUSE:
            self._renew = self._ends = float("-inf")

    async def _renewed(self) -> bool:
        began = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                value, lifetime = await self._fetch()
        except (TokenRefused, GatewayError, TimeoutError) as error:
            log.warning("provider %s: no token: %s", self.name, error if str(error) else "it took too long.")
            self._renew = min(self._clock() + PAUSE, self._ends)
            return False
        finally:
            self._task = None
        self._value = value
        self._fetched = began
        self._ends = began + lifetime - min(_SKEW, lifetime / 10)
        self._renew = began + lifetime - min(EARLY, lifetime / 5)
        return True
