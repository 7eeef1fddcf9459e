"""TLS contexts of the providers: one for all endpoints with the same files, made anew when a file has changed."""

from __future__ import annotations

import os
import ssl
from typing import Any
from weakref import WeakValueDictionary


class Contexts:
    """A reload keeps the context, and so the pooled connections, of files that are still the same."""

    def __init__(self) -> None:
        # Weak: a context goes with the last endpoint that uses it, so that renewed certificates do not pile up.
        self._made: WeakValueDictionary[tuple[Any, ...], ssl.SSLContext] = WeakValueDictionary()

    def of(self, ca_file: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext | bool:
        """``True``, the system's authorities and no certificate of ours, where there are no files.

        Raises ``OSError`` or ``ssl.SSLError`` for files that cannot be used.
        """
        if not (ca_file or client_cert):
            return True
        identity = tuple((file, file and _version(file)) for file in (ca_file, client_cert, client_key))
        context = self._made.get(identity)
        if context is None:
            context = ssl.create_default_context(cafile=ca_file)
            if client_cert:
                context.load_cert_chain(client_cert, client_key)
            self._made[identity] = context
        return context


def _version(file: str) -> tuple[int, int, int]:
    status = os.stat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns
