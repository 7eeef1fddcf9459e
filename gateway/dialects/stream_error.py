"""An error that an upstream tells inside its stream, or inside an answer that claims success."""

from __future__ import annotations


class StreamError(Exception):
    """What the provider said: it is judged like an answer of ``status``."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status that says the same; 502 where nothing better is known."""
        self.code = code
        self.message = message
