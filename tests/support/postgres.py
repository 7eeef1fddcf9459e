"""A real PostgreSQL with a cluster of its own, on a unix socket, as a child of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.programs import missing

_START = 30.0  # seconds; a cluster whose server was killed is recovered first
_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",  # what it would save from is a power cut
    "max_connections": "40",
    "shared_buffers": "16MB",
}


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``, which Debian puts on no path; skips the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else missing("PostgreSQL (initdb) is not installed")


class Postgres:
    """Its folder is the socket's, too, and gone after ``stop``."""

    def __init__(self) -> None:
        self._bin = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="hookgate-pg-", dir="/tmp"))  # a socket's path is short
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "hookgate", "-A", "trust", "-E", "UTF8", "-N")

    def url(self, database: str) -> str:
        return f"postgresql://hookgate@/{database}?host={self._folder}"

    def empty(self) -> str:
        """The URL of a database with nothing in it any more: a tenth of the time that a new one takes."""
        self.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return self.url("postgres")

    def query(self, sql: str, database: str = "postgres") -> str:
        """What psql prints, unaligned."""
        return self._run("psql", "-XqAt", "-U", "hookgate", "-h", str(self._folder), "-d", database, "-c", sql)

    def dump(self, database: str = "postgres") -> str:
        """All that is in it."""
        return self._run("pg_dump", "-U", "hookgate", "-h", str(self._folder), "-d", database)

    def start(self) -> Postgres:
        """Start and wait until it answers. After ``kill`` its last children may still hold the shared memory."""
        options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
        command = [str(self._bin / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder), *options]
        deadline = time.monotonic() + _START
        with (self._folder / "log").open("ab") as log:
            while True:
                if self._process is None or self._process.poll() is not None:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._user())
                if self._answers():
                    return self
                if time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError("PostgreSQL did not start")
                time.sleep(0.05)

    def _answers(self) -> bool:
        asked = [str(self._bin / "pg_isready"), "-q", "-h", str(self._folder)]
        return subprocess.run(asked, check=False, timeout=_START).returncode == 0

    def kill(self) -> None:
        """As a crash would end it; its children notice and end, too."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(2)  # SIGINT: disconnects clients, ends properly
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._bin / program), *arguments]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, **self._user()
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")
        return done.stdout

    def _user(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root; Debian's package brings a user for it."""
        if os.geteuid():
            return {}
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
        os.chown(self._folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": self._folder}
