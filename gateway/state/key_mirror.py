"""A table of the database, kept up with: only what has changed is read again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from gateway.state.database import Found
from gateway.state.key_rows import Invalid, Row

AnyRow = TypeVar("AnyRow", bound=Row)
Value = TypeVar("Value")
Fetch = Callable[[str, Mapping[str, Any]], Awaitable[Found]]

FIRST = -(1 << 63)
"""Before all changes."""
_PAGE = 200  # rows read at once: they take some milliseconds of the event loop


@attrs.frozen
class Item(Generic[AnyRow, Value]):
    row: AnyRow
    value: Value | None
    problem: str
    """Why there is no value."""


class Mirror(Generic[AnyRow, Value]):
    """The rows of a table, and what they mean."""

    def __init__(self, kind: type[AnyRow], read: Callable[[AnyRow], Value]) -> None:
        self.items: dict[str, Item[AnyRow, Value]] = {}
        self._kind = kind
        self._read = read
        names = ", ".join(field.name for field in attrs.fields(kind))
        self._changed = (
            f"SELECT {names} FROM {kind.TABLE} WHERE (change, name) > (:change, :name)"
            f" ORDER BY change, name LIMIT {_PAGE}"
        )
        self._count = f"SELECT COUNT(*) FROM {kind.TABLE}"
        self._names = f"SELECT name FROM {kind.TABLE} WHERE name > :name ORDER BY name LIMIT {50 * _PAGE}"

    async def follow(self, fetch: Fetch, seen: int) -> dict[str, Item[AnyRow, Value]]:
        """The items as they are now, those that changed after the change ``seen`` read anew."""
        items = self.items.copy()
        place: dict[str, Any] = {"change": seen + 1, "name": ""}
        while found := await fetch(self._changed, place):
            for row in [self._kind(*each) for each in found]:
                items[row.name] = self.item(row)
            place = {"change": row.change, "name": row.name}
        # What is gone has no number; but there are fewer rows then than we know.
        if (await fetch(self._count, {}))[0][0] != len(items):
            there = await self._there(fetch)
            items = {name: item for name, item in items.items() if name in there}
        return items

    def item(self, row: AnyRow) -> Item[AnyRow, Value]:
        """The one that is known, where the row is the same."""
        known = self.items.get(row.name)
        if known is not None and (known.row is row or known.row == row):
            return known
        try:
            return Item(row, self._read(row), "")
        except Invalid as error:
            return Item(row, None, str(error))
        except (TypeError, ValueError):  # SQLite takes anything into any column
            return Item(row, None, "A column holds what does not belong there.")

    async def _there(self, fetch: Fetch) -> set[str]:
        there = set[str]()
        place = ""
        while found := await fetch(self._names, {"name": place}):
            there.update(row[0] for row in found)
            place = found[-1][0]
        return there
