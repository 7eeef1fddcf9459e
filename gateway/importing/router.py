"""The providers file of the earlier router as the tables of a ``gateway.toml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.environment import RENAMED
from gateway.errors import ConfigError
from gateway.importing.notes import Notes
from gateway.providers_yaml import YamlError, parse

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What the earlier router had in the environment, and where it belongs now.
_ENVIRONMENT = RENAMED | {
    "ROUTER_AUTH_TOKEN": "a key made with: gateway keys new NAME",
    "HTTP_TIMEOUT_S": "first_token and idle in the timeouts of each provider",
}


def convert(path: Path, text: str, environ: Mapping[str, str], notes: Notes) -> dict[str, Any]:
    """The tables; what they cannot say goes to ``notes``. Raises ``ConfigError`` for what such files do not hold."""
    try:
        found = parse(text)
    except YamlError as error:
        raise ConfigError([f"{path}:{error.line}: {error}"]) from None
    providers: dict[str, Any] = {}
    for name, (line, table) in found.items():
        if not _NAME.fullmatch(name):
            notes.add(line, "left out: a provider's name has letters, digits and ._- only, 64 at most.")
            continue
        # Optional, so that the file can be checked where the key is not.
        providers[name] = {key: f"{value}?" if key == "api_key" else value for key, value in table.items()}
    for variable, place in _ENVIRONMENT.items():
        if environ.get(variable):
            where = place if isinstance(place, str) else ".".join(place)
            notes.add(
                0, f"{variable} is set here and not part of this file: it keeps working, or belongs into {where}."
            )
    return {"providers": providers} if providers else {}
