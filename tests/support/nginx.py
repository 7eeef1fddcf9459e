"""A real nginx in front of the gateway, in the foreground, as a child with a folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from gateway.testing import free_ports
from tests.support.programs import ROOT, needs_program

SHIPPED = ROOT / "deploy" / "nginx.conf"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """nginx with the shipped ``deploy/nginx.conf``, its ports and paths replaced by the test's."""

    host = "gateway.example.com"
    """The server name it answers to; any other ``Host`` is refused."""

    def __init__(self, folder: Path, gateway_port: int, config: str | None = None) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.config = config or render(SHIPPED.read_text(), self.port, gateway_port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def error_log(self) -> str:
        return (self.folder / "error.log").read_text(errors="replace")

    def start(self) -> Nginx:
        """Start and wait until it listens. Raises ``RuntimeError`` with its error log when it does not."""
        program = needs_program("nginx")
        for name in _TEMPORARY:
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "nginx.conf").write_text(self.config)
        # Workers of a master that runs as root change user, and then cannot enter the test's folder.
        directives = "daemon off;" + ("user root;" if os.geteuid() == 0 else "")
        command = [program, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log", "-g", directives]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 5
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"nginx did not start\n{self.error_log}")
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


def render(shipped: str, port: int, gateway_port: int) -> str:
    """The shipped configuration with the test's ports; only what names a place of the machine changes."""
    return shipped
