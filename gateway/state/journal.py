"""Rows that are not in the ledger yet, kept in Redis, so that none is lost with the process that has them.

``PREFIX:journal:PROCESS`` is a hash of rows by their id: of a call that began, as one that was ``lost``; of one that
ended, as it was. What the database has is taken out. When a process dies, another takes its rows over and writes them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.state.ledger import Ledger
from gateway.state.redis_link import Link
from gateway.state.rows import Row, from_json, to_json

log = logging.getLogger("hookgate")

# In one step, so that a process which dies in the midst of it leaves them to one that lives.
_ADOPT = """
local rows = redis.call('HGETALL', KEYS[1])
for i = 1, #rows, 2 do redis.call('HSET', KEYS[2], rows[i], rows[i + 1]) end
return rows
"""


class Journal:
    """Of one process."""

    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._ledger = ledger
        self._key = self._of(link.processes.name)
        self._adopt = link.script(_ADOPT)
        ledger.wrote.append(self.wrote)
        link.processes.on_death.append(self.adopt)

    def close(self) -> None:
        """It is another's turn. Rows that wait are the ledger's."""
        self._ledger.wrote.remove(self.wrote)
        self._link.processes.on_death.remove(self.adopt)

    def note(self, row: Row) -> None:
        """Keep ``row``, in the place of what was known of the same exchange."""
        self._link.fire("HSET", self._key, row.id, to_json(row))

    def wrote(self, ids: Sequence[str]) -> None:
        self._link.fire("HDEL", self._key, *ids)

    async def adopt(self, process: str) -> None:
        """Write what a dead process has not written. A row that it has is there already, and stays."""
        flat = await self._adopt.call([self._of(process), self._key])
        for id, text in zip(flat[::2], flat[1::2], strict=True):
            try:
                self._ledger.add(from_json(text))
            except (ValueError, TypeError):  # of another version, which has other columns
                log.error("ledger: exchange %s of a dead gateway is lost", id.decode(errors="replace"))
        # Only now: where the answer was lost on its way, the next beat asks again.
        await self._link.call("DEL", self._of(process))

    def _of(self, process: str) -> str:
        return f"{self._link.prefix}:journal:{process}"
