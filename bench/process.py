"""A server under test: started on one core, its CPU time and memory read from the kernel, ended again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_KEPT = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")
"""Environment a server inherits; everything else could be an override of its configuration."""


class StartFailed(RuntimeError):
    """A server ended, or did not answer in time; the message ends with its log."""


class Process:
    """One server with its children; its output goes to ``log``."""

    def __init__(self, command: Sequence[str], *, core: int, path: Path, log: Path) -> None:
        """``path`` is put on ``PYTHONPATH``; the working directory is the log's folder."""
        self._log = log
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"PYTHONPATH": str(path)}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=log.parent,
                env=environment,
            )
        os.sched_setaffinity(self._process.pid, {core})  # threads and children started later inherit it

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far, also of the children that are running now."""
        return sum(time.clock_gettime_ns(_cpu_clock(pid)) for pid in self._tree()) / 1e9

    def rss_bytes(self) -> int:
        return sum(_rss(pid) for pid in self._tree())

    def check(self) -> None:
        """Raises StartFailed when the process has ended."""
        if self._process.poll() is not None:
            raise self.failed(f"ended with status {self._process.returncode}")

    def failed(self, reason: str) -> StartFailed:
        command = " ".join(map(str, self._process.args)) if isinstance(self._process.args, list) else self._process.args
        return StartFailed(f"{command!r} {reason}; its output ends with:\n{self.output()[-2000:]}")

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Ends the process: SIGTERM, after three seconds SIGKILL."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tree(self) -> Iterator[int]:
        pending = [self._process.pid]
        while pending:
            pid = pending.pop()
            yield pid
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(FileNotFoundError):  # a thread may end while we look
                    pending += map(int, children.read_text().split())


def _cpu_clock(pid: int) -> int:
    """What clock_getcpuclockid(3) returns: nanoseconds, where /proc/PID/stat counts ticks of 10 ms."""
    return (~pid << 3) | 2


def _rss(pid: int) -> int:
    resident = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(resident) * os.sysconf("SC_PAGE_SIZE")
