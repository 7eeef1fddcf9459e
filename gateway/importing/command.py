"""``gateway import``: reads another gateway's configuration, writes ``gateway.toml``, tells what did not carry over."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.importing import litellm, router, source, toml_text
from gateway.importing.notes import Notes

_HEAD = """\
# Written by: gateway import {kind} {name}
# References to secrets end in a question mark, so that the gateway starts without them; take it away from those it
# cannot do without. Without [keys] the gateway is open and listens on loopback only: gateway keys new NAME.
# Names that are not in [models] are looked up as PROVIDER/MODEL and in the providers' own lists; the models of a key
# limit what it may call.

"""


def run(chosen: Namespace, environ: Mapping[str, str]) -> int:
    """Exit status 0, also where something did not carry over. Raises ``ConfigError`` and ``OSError``."""
    try:
        text = chosen.file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError([f"{chosen.file}: not UTF-8 text."]) from None
    notes = Notes()
    document: dict[str, Any]
    if chosen.kind == "litellm":
        document = litellm.convert(source.read(chosen.file, text), environ, notes)
    else:
        document = router.convert(chosen.file, text, environ, notes)
    name = "".join(char if char.isprintable() else "?" for char in chosen.file.name)
    written = _HEAD.format(kind=chosen.kind, name=name) + toml_text.write(document)
    if chosen.output is None:
        sys.stdout.write(written)
    else:
        _write(chosen.output, written, chosen.force)
    sys.stderr.write("".join(f"{line}\n" for line in notes.told(str(chosen.file))))
    return 0


def _write(path: Path, text: str, force: bool) -> None:
    """A file that is there stays as it is, or is replaced as a whole."""
    target = path.with_name(f".{path.name}.{os.getpid()}") if force else path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError([f"{target} exists; --force replaces it."]) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        target.replace(path)
    except OSError:
        target.unlink(missing_ok=True)
        raise
