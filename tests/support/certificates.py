"""Certificates of an authority that exists for one test run; skips where there is no openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


class Authority:
    """Issues certificates into ``folder``; ``file`` is its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl")
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl(f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
                      f" -keyout {self._key} -out {self.file}")  # fmt: skip

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)

    def issue(
        self, name: str, *, host: str = "IP:127.0.0.1", days: int = 2, subject: str | None = None
    ) -> tuple[Path, Path]:
        """Certificate and key; ``days`` below 0 makes one that has expired. ``subject`` is without spaces, as
        ``/O=Example/CN=alice``."""
        key, request, extensions = (self._folder / f"{name}.{kind}" for kind in ("key", "csr", "ext"))
        certificate = self._folder / f"{name}.pem"
        self._openssl(f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj {subject or f'/CN={name}'}"
                      f" -keyout {key} -out {request}")  # fmt: skip
        extensions.write_text(f"subjectAltName={host}")
        self._openssl(f"x509 -req -in {request} -CA {self.file} -CAkey {self._key} -CAcreateserial -days {days}"
                      f" -extfile {extensions} -out {certificate}")  # fmt: skip
        return certificate, key

    def client(self, name: str | None = None, **more: object) -> ssl.SSLContext:
        """What a client needs to trust a server of ours; with ``name`` it has a certificate of ours, too."""
        context = ssl.create_default_context(cafile=self.file)
        if name is not None:
            context.load_cert_chain(*self.issue(name, **more))  # type: ignore[arg-type]
        return context

    def server(self, name: str, *, demand: bool = False, **more: object) -> ssl.SSLContext:
        """What a server with a certificate of ours needs; ``demand``: clients must have one, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, **more))  # type: ignore[arg-type]
        if demand:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context
