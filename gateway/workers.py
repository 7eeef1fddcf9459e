"""More than one process: gunicorn's master and aiohttp's uvloop worker around a ``Server`` each.

gunicorn starts, counts and replaces the processes. Its own reload would start new workers, and end the service when the
new configuration is broken; so SIGHUP goes to the workers, and each of them reloads itself, atomically.

Imported only when more than one worker is configured: gunicorn is an extra.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.worker import GunicornUVLoopWebWorker
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.server import Server

log = logging.getLogger("hookgate")
_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes its files there with mkstemp
RETRY = 2.0
"""Seconds a worker waits before it ends, when it takes the place of one and the configuration does not hold now."""
_SLACK = 10.0  # seconds beyond drain and grace that the master waits before it kills


class Worker(GunicornUVLoopWebWorker):
    """One process. Drains like a gateway alone does, and goes on beating its heart meanwhile."""

    slot = 0
    """The worker's number, from 0; its successor has the same."""
    sockets: list[Any]

    def load_wsgi(self) -> None:
        self.wsgi = self._open
        self._server: Server | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._parent: int = self.ppid

    def init_signals(self) -> None:
        super().init_signals()
        self.loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        if self._server is not None:
            self._server.reload_soon()

    async def _open(self) -> web.AppRunner:
        """What aiohttp's worker calls for the runner, whose sockets it then adds."""
        app: Workers = self.app
        server = Server(app.path, app.environ, app.overrides, self.slot)
        try:
            await server.open()
        except (ConfigError, OSError) as error:
            for problem in error.problems if isinstance(error, ConfigError) else [error]:
                log.error("%s", problem)
            if self.age <= self.cfg.workers:
                sys.exit(Arbiter.WORKER_BOOT_ERROR)  # the first of all: the service does not start
            # The others go on with what they have; this place stays empty until the file is mended.
            for wrapper in self.sockets:  # of its own with reuse_port: nobody shall wait there
                wrapper.close()
            await asyncio.sleep(RETRY)
            sys.exit(1)
        if not self.alive:  # told to end meanwhile
            await server.stop()
            sys.exit(0)
        self._server = server
        # Without gunicorn's wrappers, which complain when the event loop has closed what they hold.
        self.sockets = [wrapper.sock for wrapper in self.sockets]
        assert server.runner is not None
        return server.runner

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: drain. A second one: at once."""
        if self._server is None:
            self.alive = False
        elif self._stopping is None:
            self._stopping = self.loop.create_task(self._stop(self._server))
        else:
            self._server.hurry()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGQUIT and SIGINT: at once."""
        self.handle_exit(sig, frame)
        if self._stopping is not None:
            self.handle_exit(sig, frame)

    async def _stop(self, server: Server) -> None:
        try:
            await server.stop()
        finally:
            self.alive = False
            self._notify_waiter_done()

    def notify(self) -> None:
        super().notify()
        if self._server is not None and self._parent != os.getppid():  # the master is gone
            self._parent = self.ppid = os.getppid()  # or aiohttp's worker would end at once, and cut off its streams
            self.handle_exit(signal.SIGTERM, None)


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    _ending = False

    def handle_hup(self) -> None:
        self.kill_workers(signal.SIGHUP)

    def handle_usr2(self) -> None:
        self.log.warning("SIGUSR2 is not served; [server] reuse_port lets a successor start beside this gateway.")

    def reap_workers(self) -> None:
        try:
            super().reap_workers()
        except HaltServer:
            if not self._ending:  # else a second worker that did not start, which gunicorn does not expect
                raise

    def stop(self, graceful: bool = True) -> None:
        self._ending = True
        # gunicorn only queues what comes while it waits for its workers; a second SIGTERM must reach them.
        signal.signal(signal.SIGTERM, lambda *_: self.kill_workers(signal.SIGTERM))
        super().stop(graceful)


class Workers(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's settings, made from ours; no file or environment variable of gunicorn's is read."""

    def __init__(self, config: Config, path: Path, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> None:
        self.path = path
        self.environ = environ
        self.overrides = overrides
        self._config = config
        super().__init__()

    def load_config(self) -> None:
        server = self._config.server
        host = f"[{server.host}]" if ":" in server.host and not server.host.startswith("unix:") else server.host
        settings = {
            "bind": [host if host.startswith("unix:") else f"{host}:{server.port}"],
            "workers": server.workers,
            "worker_class": Worker,
            "graceful_timeout": int(server.drain_delay + server.shutdown_grace + _SLACK),
            "backlog": 1024,
            "reuse_port": server.reuse_port,
            "proc_name": "hookgate",
            "pre_fork": _give_slot,
            # A control plane that nobody asked for.
            "control_socket_disable": True,
            # Heartbeats are file times; on a disk they could stall.
            "worker_tmp_dir": _MEMORY if os.access(_MEMORY, os.W_OK) else None,
        }  # fmt: skip
        for name, value in settings.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        Master(self).run()


def _give_slot(master: Any, worker: Any) -> None:
    taken = {other.slot for other in master.WORKERS.values()}
    worker.slot = next(number for number in count() if number not in taken)
