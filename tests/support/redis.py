"""A real Redis on a port of its own, in memory only, with what goes wrong with one; and a raw connection to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import free_ports
from tests.support.programs import needs_program


class Redis:
    """``options`` are ``redis-server``'s: ``("--maxmemory", "1mb")``. Stopped at the end whatever state it is in."""

    def __init__(self, folder: Path, *options: str) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Redis:
        """Start and wait until it answers. Raises ``RuntimeError`` with its log when it does not."""
        command = [
            needs_program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", str(self._folder), *self._options,
        ]  # fmt: skip
        log = self._folder / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start\n{log.read_text(errors='replace')}")
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            self.ask("PING")
        except OSError:
            return False
        except RuntimeError:  # wants a password
            pass
        return True

    def ask(self, *command: str | bytes | int) -> Any:
        """One command on a connection of its own: an oracle beside the gateway. Raises ``RuntimeError`` for an error
        reply, ``OSError`` when there is no server."""
        import hiredis

        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]  # as in redis_pipe.py
            while (reply := reader.gets()) is False:
                if not (data := connection.recv(65536)):
                    raise ConnectionError("Redis closed the connection")
                reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise RuntimeError(str(reply))
        return reply

    def kill(self) -> None:
        """As a crash: everything in it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def stop(self) -> None:
        """It hangs: connections are accepted by the system, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Empty, on the same port."""
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Redis(folder)
    try:
        yield server.start()
    finally:
        server.kill()
