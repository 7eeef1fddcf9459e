"""An upstream's answer while it arrives, under the time limits of its provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDictProxy

from gateway.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout, from_upstream

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.upstream import Endpoint

WHOLE_LIMIT = 64 << 20
"""Bytes a whole reply may have where it has to be held in memory (translation, error bodies)."""


class Answer:
    """An upstream's answer: head now, body as it comes."""

    __slots__ = (
        "_close", "_content", "_deadline", "_exchange", "_first_by", "_idle", "_limited", "_name", "headers", "status",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
        close: Callable[[], None],
        exchange: Exchange | None,
        endpoint: Endpoint,
        sent: float,
    ) -> None:
        self.status = status
        self.headers = headers
        self._content = content
        self._close = close
        self._exchange = exchange
        limits = endpoint.timeouts
        self._idle = limits.idle
        self._deadline = sent + limits.total if limits.total else inf
        streamed = exchange is not None and exchange.stream
        self._first_by = sent + limits.first_token if streamed and limits.first_token else inf
        self._limited = self._deadline < inf or self._first_by < inf
        self._name = endpoint.name

    async def chunks(self) -> AsyncIterator[bytes]:
        """Body bytes as they arrive, undecoded. Raises ``UpstreamError`` when the answer is cut or stalls."""
        content = self._content
        guard = self._exchange.guard if self._exchange is not None else None
        idle, stalled = self._idle, self._stalled
        try:
            while True:
                if self._limited:
                    self._arm(guard)
                elif guard is not None:
                    guard.arm(idle, stalled)
                block = await content.readany()
                if not block:
                    return
                yield block
        except asyncio.CancelledError:
            if guard is None or (error := guard.caught()) is None:
                raise
            raise error from None
        except GeneratorExit:
            guard = None  # nothing was awaited here: whatever the guard holds by now is another's limit
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise from_upstream(error, self._name) from error
        finally:
            if guard is not None:
                guard.disarm()

    def arrived(self, limit: int = WHOLE_LIMIT) -> bytes | None:
        """The whole body, if it came with the head and there is nothing to wait for; can be asked once."""
        content = self._content
        if not content.is_eof() or content.exception() is not None or content.total_bytes > limit:
            return None
        whole = content.read_nowait(-1)
        self._close()
        return whole

    async def read(self, limit: int = WHOLE_LIMIT) -> bytes:
        """The whole body. Raises ``UpstreamProtocolError`` past ``limit`` bytes, else as ``chunks``."""
        if (whole := self.arrived(limit)) is not None:
            return whole
        blocks: list[bytes] = []
        size = 0
        try:
            async for block in self.chunks():
                size += len(block)
                if size > limit:
                    raise UpstreamProtocolError(f"The provider's answer is over {limit} bytes long.", target=self._name)
                blocks.append(block)
        finally:
            self.close()
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else abort it. Idempotent."""
        self._close()

    def _arm(self, guard: Any) -> None:
        """The limits that hold beside the one between two pieces."""
        if self._first_by < inf:
            if self._exchange is not None and not self._exchange.committed:
                self._arm_first(guard)
                return
            self._first_by = inf
            self._limited = self._deadline < inf
        if self._deadline < inf:
            self._arm_deadline(guard)
        elif guard is not None:
            guard.arm(self._idle, self._stalled)

    def _arm_first(self, guard: Any) -> None:
        """A stream that has said nothing yet: pings are no progress."""
        left = min(self._first_by, self._deadline) - monotonic()
        if left <= 0:
            raise self._silent()
        if guard is not None:
            guard.arm(left, self._silent)

    def _silent(self) -> UpstreamError:
        return UpstreamTimeout("The provider did not answer in time.", target=self._name)

    def _arm_deadline(self, guard: Any) -> None:
        """Also for an answer that never stalls: looked at before each read."""
        left = self._deadline - monotonic()
        if left <= 0:
            raise self._too_long()
        if guard is not None and self._idle and self._idle < left:
            guard.arm(self._idle, self._stalled)
        elif guard is not None:
            guard.arm(left, self._too_long)

    def _too_long(self) -> UpstreamError:
        return UpstreamTimeout("The provider's answer took too long.", target=self._name)

    def _stalled(self) -> UpstreamError:
        return UpstreamTimeout("The provider stopped sending.", target=self._name)
