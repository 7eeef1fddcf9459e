"""An upstream that is no model provider (an agent runner, say), listed for its health alone."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gateway import Runtime, Secret, Timeouts, hookimpl


@attrs.frozen(kw_only=True)
class Settings:
    url: str
    """Address asked with GET; any status below 400 is well."""
    headers: Mapping[str, str | Secret] = attrs.field(factory=dict)
    """Sent along; values may be secret references."""
    timeouts: Timeouts = Timeouts()
    """connect and first_token matter here."""


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._endpoint = runtime.upstream.endpoint(
            runtime.name, settings.url, headers=settings.headers, timeouts=settings.timeouts
        )

    @hookimpl
    async def check_health(self) -> str | None:
        answer = await self._endpoint.send(None, "GET", "")
        answer.close()
        return None if answer.status < 400 else f"answered {answer.status}"
