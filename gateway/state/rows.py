"""A row of the ledger: what one exchange was, whose, and what it used. No prompt, no answer, no address."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import attrs
import orjson

LONGEST = 260
"""Characters of a text that is kept: a principal of a token has up to 255 behind its prefix."""
_LARGEST = (1 << 63) - 1


@attrs.define  # not frozen, which doubles what it takes to make one; nobody changes it
class Row:
    """Of numbers ``None`` is unknown, which is not zero. Texts may still be as a client sent them."""

    id: str
    """The gateway's own id of the exchange: unique among all gateways that share a ledger."""
    request_id: str
    """``x-request-id`` of the answer, which may be the client's."""
    started: int
    """Unix time in milliseconds."""
    principal: str | None
    """``None`` where nobody knows who asked: no key, a wrong one, or an open gateway."""
    team: str | None
    surface: str
    model: str | None
    """The name the client sent."""
    target: str | None
    """Provider and upstream model of the last call."""
    stream: bool
    status: int
    """0 where the client left before the answer."""
    outcome: str
    error: str | None
    """Its code."""
    cache: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    """Of the input."""
    cache_write_tokens: int | None
    """Of the input."""
    reasoning_tokens: int | None
    """Of the output."""
    provenance: str | None
    """Where the tokens are from: ``reported``, ``partial`` or ``estimated``."""
    cost_nano: int | None
    """Nano-dollars."""
    duration_ms: float
    ttfb_ms: float | None
    """Until the first byte of the answer's body."""
    overhead_ms: float
    """What of the time until then was not spent waiting for a provider."""
    tried: int
    """Calls made to targets."""


_COLUMNS = tuple(field.name for field in attrs.fields(Row))
_get = attrgetter(*_COLUMNS)
# What others than we have chosen: clients and issuers of tokens texts, providers numbers.
_SENT = ("request_id", "principal", "team", "model", "target", "error")
_COUNTED = tuple(name for name in _COLUMNS if name.endswith("_tokens"))
LOST = "lost"
"""The outcome of a call whose gateway died before it ended."""
INSERT = (
    f"INSERT INTO hookgate_ledger ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
    f" WHERE hookgate_ledger.outcome = '{LOST}'"
)
"""A row that is there already stays as it is, so a batch whose fate is unknown can be written again; but one that was
thought lost gives way to what became of it: its gateway had only been asleep."""


def values(row: Row) -> dict[str, Any]:
    """The row as both databases take it."""
    found = dict(zip(_COLUMNS, _get(row), strict=True))
    for name in _SENT:
        if found[name] is not None:
            found[name] = shown(found[name])
    for name in _COUNTED:
        # Providers count tokens; what no column holds is not known.
        if (count := found[name]) is not None and (type(count) is not int or not -_LARGEST <= count <= _LARGEST):
            found[name] = None
    return found


def shown(text: str) -> str:
    """A text as it stands in the database: short, and without what is no text to PostgreSQL (U+0000) or to UTF-8."""
    if text.isprintable() and len(text) <= LONGEST:
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:LONGEST])


def to_json(row: Row) -> bytes:
    try:
        return orjson.dumps(_get(row))
    except TypeError:  # a text or a number of a client's or a provider's that only a database's form can hold
        return orjson.dumps(tuple(values(row).values()))


def from_json(text: bytes) -> Row:
    """What ``to_json`` made. Raises ``ValueError`` or ``TypeError`` for anything else."""
    return Row(*orjson.loads(text))
