"""Request ids that look like random UUIDs and cost a tenth of one."""

from __future__ import annotations

import itertools
import os


class RequestIds:
    """Makes ids no other request of this or any other process has: 72 random bits per process and a counter.

    Their form is that of RFC 9562's version 4, because model servers exist that answer 400 to any other
    ``x-request-id``: ``llama_cpp.server``, and whatever else uses starlette-context's ``RequestIdPlugin``.
    """

    def __init__(self) -> None:
        digits = os.urandom(9).hex()
        self._prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:]}-"
        self._serial = itertools.count()

    def new(self) -> str:
        """The next id."""
        return f"{self._prefix}{next(self._serial):012x}"
