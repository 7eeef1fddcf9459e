"""A real nginx in front of the gateway, in the foreground, as a child with a folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from string import Template

from gateway.testing import free_ports
from tests.support.programs import needs_program

HOST = "gateway.example.com"
"""The server name nginx answers to here; any other ``Host`` is refused."""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

CONFIG = Template("""
worker_processes 1;
pid nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path client_body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server_tokens off;
    client_max_body_size 64m;
    client_header_timeout 15s;
    client_body_timeout 60s;
    upstream gateway { server 127.0.0.1:$gateway_port; keepalive 1; keepalive_timeout 60s; }
    server { listen 127.0.0.1:$port default_server; server_name _; return 444; }
    server {
        listen 127.0.0.1:$port;
        server_name $host;
        location / {
            proxy_pass http://gateway;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $$host;
            proxy_set_header X-Forwarded-For $$remote_addr;
            proxy_set_header Cookie "";
            proxy_set_header Proxy-Authorization "";
            proxy_buffering off;
            proxy_read_timeout 3600s;
            proxy_next_upstream error timeout;
            proxy_ignore_client_abort off;
        }
$locations
    }
}
""")


class Nginx:
    """nginx proxying to a gateway on ``gateway_port``; ``locations`` is added to its server block."""

    def __init__(self, folder: Path, gateway_port: int, *, locations: str = "") -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.config = CONFIG.substitute(port=self.port, gateway_port=gateway_port, host=HOST, locations=locations)
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
