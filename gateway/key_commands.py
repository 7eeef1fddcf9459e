"""``gateway keys`` and ``gateway teams``: their command lines. What they do is in ``gateway.key_acts``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import key_options, virtual_key
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config import Config

_RELEVANT = re.compile(r": \[?(state|keys|teams)\b")
_OF_BOTH = {
    "create": "Make one.",
    "update": "Change what one may use; what is not named stays as it is.",
    "list": "List all, those of gateway.toml, too.",
    "show": "Show one, as JSON.",
    "delete": "Remove one.",
}
_OF_KEYS = {
    "rotate": "Put a new key in the place of one; the new one is printed once.",
    "block": "Let a key open nothing.",
    "unblock": "Let a blocked key be used again.",
    "expire": "Say when a key ends: now, if not otherwise.",
}


def add(commands: Any, add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add both to ``commands``, argparse's sub-parsers."""
    keys = commands.add_parser("keys", help="Virtual keys.").add_subparsers(required=True, metavar="COMMAND")
    new = keys.add_parser("new", help="Make a key for gateway.toml; it is printed once, with its table.")
    new.add_argument("name")
    new.set_defaults(run=_new)
    teams = commands.add_parser("teams", help="Teams of keys, in the database.")
    teams = teams.add_subparsers(required=True, metavar="COMMAND")
    for kind, group, texts in (("keys", keys, _OF_BOTH | _OF_KEYS), ("teams", teams, _OF_BOTH)):
        for act, text in texts.items():
            command = group.add_parser(act, help=text, description=f"{text} In the database of [state] ledger.")
            command.set_defaults(run=_run, kind=kind, act=act)
            add_config(command)
            key_options.add(command, kind, act)


def _new(chosen: argparse.Namespace) -> int:
    key = virtual_key.make()
    # TOML's bare keys, else its basic strings, which escape as JSON does.
    name = chosen.name if re.fullmatch("[A-Za-z0-9_-]+", chosen.name) else json.dumps(chosen.name, ensure_ascii=False)
    digest = virtual_key.digest_of(key).hex()
    print(f'Key (shown once):\n  {key}\n\nFor gateway.toml:\n[keys.{name}]\nsha256 = "{digest}"')
    return 0


def _run(chosen: argparse.Namespace) -> int:
    """Raises ``ConfigError``."""
    from gateway.key_acts import Acts
    from gateway.state.database import DatabaseError
    from gateway.state.key_rows import Invalid
    from gateway.state.key_store import Missing, Taken, opened

    config = _load(chosen.config)

    async def act() -> None:
        async with opened(config, chosen.config.parent, create=chosen.act == "create") as store:
            await getattr(Acts(chosen, config, store), chosen.act)()

    try:
        asyncio.run(act())
    except (Invalid, Missing, Taken, DatabaseError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _load(path: Path) -> Config:
    from gateway import config

    settings, document = config.load(path, os.environ)
    # What is wrong with the rest is no matter of keys: its secrets may be there for the gateway alone.
    if problems := [each for each in document.problems if _RELEVANT.search(each) or not document.table()]:
        raise ConfigError(problems)
    if not settings.state.keys:
        where = document.where(("state", "keys"))
        raise ConfigError(
            [f"{where}: state.keys is not on: all keys are in this file. gateway keys new NAME makes one."]
        )
    return settings
