"""The gateway inside the test's own event loop: the real thing on a free port, its plugins and exchanges at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from gateway.exchange import Exchange
from gateway.plugins import Call, Plugins
from gateway.runtime import Stat


class LocalGateway:
    """Runs plugins without a process of their own.

        async with LocalGateway(tmp_path, 'plugins = { chain = ["tag"], folders = ["…"] }') as gateway:
            await fetch_chat(gateway.url, "echo")
            assert gateway.plugin("tag").seen == 1
            assert gateway.exchanges[0].outcome == "ok"

    ``config`` is the text of ``gateway.toml``, written to ``folder``; ``environ`` is all of the environment it sees.
    Entering raises ``ConfigError`` with every problem.
    """

    def __init__(self, folder: Path, config: str, environ: Mapping[str, str] = {}) -> None:
        from gateway.server import Server  # at first use: this module is imported wherever pytest runs

        path = folder / "gateway.toml"
        path.touch(mode=0o600)
        path.write_text(config)
        self._path = path
        self._server = Server(path, {"GATEWAY__ADMIN__PORT": "0", **environ}, {"port": 0})
        self.exchanges: list[Exchange] = []
        """The finished ones, as ``on_finish`` saw them."""

    async def __aenter__(self) -> Self:
        await self._server.start()
        self._listen_in()
        return self

    def _listen_in(self) -> None:
        last = Call("testing", "on_finish", self.exchanges.append, False, Stat())
        self._plugins.on_finish = (*self._plugins.on_finish, last)

    async def reload(self, config: str | None = None) -> None:
        """Reload, after writing ``config`` if there is one. Raises ``ConfigError`` with every problem."""
        if config is not None:
            self._path.write_text(config)
        await self._server.reload()
        self._listen_in()

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    @property
    def _plugins(self) -> Plugins:
        return self._server.generation.plugins

    def _url(self, listener: int) -> str:
        host, port = self._server.addresses[listener]
        return f"http://{host}:{port}"

    @property
    def url(self) -> str:
        return self._url(0)

    @property
    def admin_url(self) -> str:
        return self._url(1)

    def plugin(self, name: str) -> Any:
        """The ``Plugin`` instance called ``name`` in the configuration. Raises ``LookupError``."""
        for loaded in self._plugins.loaded:
            if loaded.name == name:
                return loaded.plugin
        raise LookupError(f"no plugin '{name}' is loaded")
