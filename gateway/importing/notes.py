"""What an import has to tell: what did not carry over, why, and on which line of the source it stands."""

from __future__ import annotations


class Notes:
    """Messages by line; one message about several lines is told once."""

    def __init__(self) -> None:
        self._lines: dict[str, list[int]] = {}

    def add(self, line: int, message: str) -> None:
        """``line`` counts from 1; 0 is the file as a whole. ``message`` never quotes a value that may be a secret."""
        lines = self._lines.setdefault(message, [])
        if line not in lines:
            lines.append(line)

    def told(self, file: str) -> list[str]:
        """``FILE:LINE: message (also lines …)``, in the order of the lines, fit for a terminal."""
        found = sorted((sorted(lines), message) for message, lines in self._lines.items())
        return [_printable(f"{_place(file, lines[0])}: {message}{_also(lines[1:])}") for lines, message in found]


def _place(file: str, line: int) -> str:
    return f"{file}:{line}" if line else file


def _also(lines: list[int]) -> str:
    if not lines:
        return ""
    return f" (also line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))})"


def _printable(text: str) -> str:
    """Names come from a file: one with an escape sequence in it must not reach a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
