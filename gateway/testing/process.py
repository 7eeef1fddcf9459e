"""The gateway as its users run it: a process of its own, started from a ``gateway.toml``, heard over sockets only."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.testing import wire

READY_WITHIN = 10.0
"""Seconds the gateway may take from its start to its first answer."""
_PACKAGE_ROOT = Path(__file__).parents[2]
_UNCLEAN = re.compile(
    r"Traceback|Error handling request|Unclosed|never retrieved|Task was destroyed|never awaited|ResourceWarning"
)
# What the machine running the tests has set must not reach the gateway: proxies, keys, its own overrides.
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


class GatewayProcess:
    """``python -m gateway serve`` on free ports of 127.0.0.1, its output in files of ``folder``.

    ``config`` is the text of ``gateway.toml``; ports come on top of it. ``stop`` fails when the process had to be
    killed, ended with a status other than 0, or left a traceback or an unclosed resource in its output; assign
    ``checked = False`` when the test wants just that.
    """

    def __init__(
        self, folder: Path, config: str, *, env: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.config_path = folder / "gateway.toml"
        self.config_path.touch(mode=0o600)
        self.config_path.write_text(config)
        self.port, self.admin_port = wire.free_ports(2)
        self.checked = True
        self._arguments = arguments
        self._environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        self._environment |= {
            "GATEWAY__ADMIN__PORT": str(self.admin_port),
            "PYTHONPATH": str(_PACKAGE_ROOT),
            "PYTHONWARNINGS": "default::ResourceWarning",
            **(env or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LookupError("start() first")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        command = [
            sys.executable,
            "-m",
            "gateway",
            "serve",
            "--config",
            str(self.config_path),
            "--port",
            str(self.port),
        ]
        command += self._arguments
        with open(self.folder / "stdout", "wb") as out, open(self.folder / "stderr", "wb") as err:
            self._process = subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=out, stderr=err)

    def start(self) -> GatewayProcess:
        """Start and wait until ``/health/live`` answers. Raises ``RuntimeError`` with the output when it does not."""
        self.launch()
        deadline = time.monotonic() + READY_WITHIN
        while not self._alive():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                self.checked = False
                raise RuntimeError(f"the gateway did not start\n{self.stdout}\n{self.stderr}")
            time.sleep(0.02)
        return self

    def _alive(self) -> bool:
        try:
            with _open(f"{self.url}/health/live") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    async def stop(self, number: int = signal.SIGTERM, *, within: float = 10.0) -> None:
        """Send a signal and wait for the end, while the caller's event loop goes on. Raises ``AssertionError``."""
        await asyncio.to_thread(self.end, number, within=within)

    def end(self, number: int = signal.SIGTERM, *, within: float = 10.0) -> None:
        """``stop`` for callers without an event loop."""
        if self._process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway ran on {within} s after signal {number}\n{self.stderr}") from None
        if self.checked and (status != 0 or _UNCLEAN.search(self.stderr)):
            self.checked = False
            raise AssertionError(f"the gateway ended with status {status}\n{self.stderr}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines written so far, to either stream."""
        # A line may be read while it is being written: what has no end yet is none.
        lines = [line for text in (self.stdout, self.stderr) for line in text.split("\n")[:-1]]
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def wait_log(self, count: int = 1, within: float = 2.0, **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines with these ``fields``, once there are ``count`` of them. Raises ``TimeoutError``."""
        async with asyncio.timeout(within):
            while True:
                lines = [line for line in self.log_lines() if fields.items() <= line.items()]
                if len(lines) >= count:
                    return lines
                await asyncio.sleep(0.02)

    async def metrics(self) -> Metrics:
        """The metrics of the admin listener, now."""
        return Metrics((await asyncio.to_thread(_read, f"{self.admin_url}/metrics")).decode())


class Metrics:
    """A scrape. ``value("name", label="x")`` sums the samples that carry these labels; 0.0 if there is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )


# Without the proxies of the environment: this is 127.0.0.1.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def _read(url: str) -> bytes:
    with _open(url, timeout=5) as answer:
        body: bytes = answer.read()
        return body
