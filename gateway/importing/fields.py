"""Reads one table of a LiteLLM configuration key by key, and tells what nobody asked for.

``os.environ/NAME`` stands for a variable there, for any value; ``gateway.toml`` has references for secrets only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from gateway.importing.notes import Notes
from gateway.importing.source import Source
from gateway.toml_lines import KeyPath

_REFERENCE = "os.environ/"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secrets:
    """Names of variables for secrets the source has in clear text: the same secret, the same name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def name(self, value: str, wanted: str) -> str:
        """``HOOKGATE_…``: no variable that is set already for something else."""
        if value not in self._names:
            stem = "HOOKGATE_" + re.sub(r"[^A-Z0-9]", "_", wanted.upper())
            taken = self._names.values()
            free = (name for number in range(1, len(self._names) + 2)
                    if (name := stem if number == 1 else f"{stem}_{number}") not in taken)  # fmt: skip
            self._names[value] = next(free)
        return self._names[value]


class Fields:
    """One table, at ``path`` of ``source``. Each key that is asked for counts as dealt with."""

    def __init__(
        self,
        source: Source,
        path: KeyPath,
        values: Mapping[str, Any],
        environ: Mapping[str, str],
        notes: Notes,
        secrets: Secrets,
    ) -> None:
        self.path = path
        self._source = source
        self._values = dict(values)
        self._environ = environ
        self._notes = notes
        self._secrets = secrets
        self._asked = set[str]()

    def line(self, key: str | None = None) -> int:
        return self._source.line(self.path if key is None else (*self.path, key))

    def note(self, key: str | None, message: str) -> None:
        self._notes.add(self.line(key), message if key is None else f"{key}: {message}")

    def get(self, key: str) -> Any:
        """The value as it stands; ``None`` if there is none."""
        self._asked.add(key)
        return self._values.get(key)

    def default(self, key: str, value: Any) -> None:
        """What holds where this table says nothing."""
        if self._values.get(key) is None and value is not None:
            self._values[key] = value

    def text(self, key: str, *variables: str) -> str | None:
        """A string; that of a variable if one is referred to, or if the key is missing and one of ``variables`` is set,
        as they do over there."""
        value = self.get(key)
        if isinstance(value, str) and value.startswith(_REFERENCE):
            name = value.removeprefix(_REFERENCE)
            if not self._environ.get(name):
                self.note(key, f"the environment variable {_variable(name)} is not set here, and only secrets can be "
                          "references in gateway.toml.")  # fmt: skip
                return None
            self.note(key, f"written as the environment variable {_variable(name)} has it now; only secrets can be "
                      "references in gateway.toml.")  # fmt: skip
            return self._environ[name]
        if value is None:
            for name in variables:
                if self._environ.get(name):
                    self.note(None, f"{key}: taken from the environment variable {name} as it is now.")
                    return self._environ[name]
            return None
        return str(value)

    def number(self, key: str) -> float | None:
        """A number above or equal to 0, or ``None``; what is something else is noted."""
        value = self.get(key)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                pass
        if value is None:
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and 0 <= value < 1e9:
            return int(value) if value == int(value) else float(value)
        self.note(key, "expected a number; left out.")
        return None

    def peek(self, key: str) -> float | None:
        """A number as it stands, without counting its key as dealt with."""
        value = self._values.get(key)
        return value if isinstance(value, (int, float)) and 0 <= value < 1e12 else None

    def whole(self, key: str) -> int | None:
        """``number``, without its fraction."""
        value = self.number(key)
        return None if value is None else int(value)

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        return value if isinstance(value, bool) else None

    def table(self, key: str) -> dict[str, Any]:
        value = self.get(key)
        return value if isinstance(value, dict) else {}

    def inner(self, key: str) -> Fields:
        """The table at ``key``, empty if there is none."""
        return Fields(
            self._source, (*self.path, key), self.table(key), self._environ, self._notes, self._secrets
        )  # fmt: skip

    def names(self) -> list[str]:
        return list(self._values)

    def variable(self, key: str) -> str | None:
        """The name of the environment variable that is referred to, if one is."""
        value = str(self.get(key))
        name = value.removeprefix(_REFERENCE)
        return name if name != value and _VARIABLE.fullmatch(name) else None

    def secret(self, key: str, wanted: str, default: str = "") -> str | None:
        """A reference, marked optional so that the file can be checked where the secret is not; never the secret."""
        value = self.get(key)
        if value is None or value == "":
            return f"env:{default}?" if default else None
        if name := self.variable(key):
            return f"env:{name}?"
        name = self._secrets.name(str(value), wanted)
        self.note(key, f"a secret in clear text is not copied: put it into the environment variable {name}.")
        return f"env:{name}?"

    def left(self, reasons: Mapping[str, str], ignore: Iterable[str] = ()) -> None:
        """Note each key nobody asked for, with the reason for its first part, if there is one."""
        for key, value in self._values.items():
            if key not in self._asked and key not in ignore and value not in (None, [], {}):
                self.note(key, f"not carried over: {reasons.get(key, 'it has no counterpart.')}")


def _variable(name: str) -> str:
    """Not what stands there, if that is no name: it may be a secret in the wrong place."""
    return name if _VARIABLE.fullmatch(name) else "it names"
