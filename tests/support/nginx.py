"""A real nginx in front of the gateway, in the foreground, as a child with a folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from gateway.testing import free_ports
from tests.support.programs import ROOT, needs_program

HOST = "gateway.example.com"
"""The server name nginx answers to here; any other ``Host`` is refused."""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_TEMPORARY_PATHS = " ".join(f"{name}_temp_path {name};" for name in _TEMPORARY)
_DEPLOYED = ROOT / "deploy/nginx.conf"
_GATEWAY_LOCATION = "        location / {\n            proxy_pass"


def render(port: int, gateway_port: int, *, locations: str = "") -> str:
    """The file we deploy, with ports and paths of a test in it; ``locations`` is added to its server block."""
    text = _DEPLOYED.read_text()
    for deployed, tested in (
        ("worker_processes auto;", "worker_processes 1;"),
        ("pid /run/nginx.pid;", "pid nginx.pid;"),
        ("access_log /var/log/nginx/access.log", "access_log access.log"),
        ("http {", f"http {{ {_TEMPORARY_PATHS}"),
        ("listen 80", f"listen 127.0.0.1:{port}"),
        ("server_name gateway.example.com;", f"server_name {HOST};"),
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{gateway_port};"),
        ("keepalive 64;", "keepalive 1;"),  # what one request leaves on the connection, the next one meets
        (_GATEWAY_LOCATION, f"{locations}\n{_GATEWAY_LOCATION}"),
    ):
        if deployed not in text:
            raise ValueError(f"{_DEPLOYED.name} no longer has {deployed!r}")
        text = text.replace(deployed, tested)
    return text


class Nginx:
    """nginx proxying to a gateway on ``gateway_port``; ``locations`` is added to its server block."""

    def __init__(self, folder: Path, gateway_port: int, *, locations: str = "") -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.config = render(self.port, gateway_port, locations=locations)
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
