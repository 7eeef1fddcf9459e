"""Keys and teams on the admin listener: ``/keys`` and ``/teams``, for whoever shows ``[admin] token``."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

from aiohttp import web

from gateway.key_entries import entry, wanted
from gateway.runtime import Runtime
from gateway.state.database import DatabaseError, RowRefused
from gateway.state.key_rows import Invalid, KeyRow, TeamRow
from gateway.state.key_store import Keys, KeyStore, Missing, Taken, Teams, opened
from gateway.units import parse_duration

log = logging.getLogger("hookgate")

MOST = 1000
"""Entries of one answer."""
_STATUS: dict[type[Exception], int] = {Invalid: 400, RowRefused: 400, Missing: 404, Taken: 409}

Handler = Callable[[web.Request, KeyStore], Awaitable[web.Response]]


def routes(runtime: Runtime) -> list[web.RouteDef]:
    """They answer with 404 where there is no token, or no keys in a database."""
    return [*_Keys(runtime).routes(), *_Part(runtime, "teams").routes()]


class _Part:
    """``/keys`` or ``/teams``."""

    def __init__(self, runtime: Runtime, kind: str) -> None:
        self._config = runtime.config
        self._keyring = runtime.keys
        self._kind = kind

    def routes(self) -> list[web.RouteDef]:
        all_of_them, one = f"/{self._kind}", f"/{self._kind}/{{name}}"
        return [
            web.get(all_of_them, self._guarded(self.list)),
            web.post(all_of_them, self._guarded(self.create)),
            web.get(one, self._guarded(self.show)),
            web.patch(one, self._guarded(self.update)),
            web.delete(one, self._guarded(self.delete)),
        ]

    def _guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            if (refusal := self._refusal(request)) is not None:
                return refusal
            assert self._keyring is not None
            try:
                async with opened(self._config, self._keyring.folder, create=False) as store:
                    return await handler(request, store)
            except tuple(_STATUS) as error:
                return _problem(_STATUS[type(error)], str(error))
            except DatabaseError as error:
                log.warning("admin: %s", error)
                return _problem(503, "The database cannot be used; the log says why.")

        return answer

    def _refusal(self, request: web.Request) -> web.Response | None:
        token = self._config.admin.token
        if token is None or self._keyring is None:
            missing = "[admin] token" if token is None else "[state] keys"
            return _problem(404, f"Keys and teams can be changed here where {missing} is set.")
        if "Origin" in request.headers:
            return _problem(403, "Web pages may not do this.")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        matches = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.reveal().encode())
        if scheme.lower() != "bearer" or not matches:
            return _problem(401, "Expected the token of [admin], as Authorization: Bearer.")
        return None

    def _table(self, store: KeyStore) -> Keys | Teams:
        return store.keys if self._kind == "keys" else store.teams

    async def list(self, request: web.Request, store: KeyStore) -> web.Response:
        """By name; ``next`` is what ``?after=`` takes for those behind."""
        limit = _limit(request.query.get("limit", str(MOST)))
        rows = await self._table(store).list(request.query.get("after", ""), limit)
        following = rows[-1].name if len(rows) == limit else None
        return _answer({self._kind: [self._entry(row) for row in rows], "next": following})

    async def show(self, request: web.Request, store: KeyStore) -> web.Response:
        return _answer(self._entry(await self._table(store).get(request.match_info["name"])))

    async def create(self, request: web.Request, store: KeyStore) -> web.Response:
        given = await _body(request)
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise Invalid("name: expected a string.")
        key, row = await self._table(store).create(name, wanted(given, time()))
        return await self._changed(row, "created", key, status=201)

    async def update(self, request: web.Request, store: KeyStore) -> web.Response:
        given = wanted(await _body(request), time())
        return await self._changed(await self._table(store).update(request.match_info["name"], given), "changed")

    async def delete(self, request: web.Request, store: KeyStore) -> web.Response:
        row = await self._table(store).get(request.match_info["name"])
        await self._table(store).delete(row.name)
        return await self._changed(row, "deleted")

    async def _changed(
        self, row: KeyRow | TeamRow, what: str, key: str | None = None, status: int = 200
    ) -> web.Response:
        assert self._keyring is not None
        await self._keyring.refresh()
        log.info("admin: %s %r %s", row.KIND, row.name, what)
        return _answer(self._entry(row) | ({} if key is None else {"key": key}), status)

    def _entry(self, row: KeyRow | TeamRow) -> dict[str, Any]:
        assert self._keyring is not None
        return entry(row, self._keyring.problem(row), time())


class _Keys(_Part):
    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "keys")

    def routes(self) -> list[web.RouteDef]:
        acts = (self.rotate, self.block, self.unblock)
        return super().routes() + [web.post(f"/keys/{{name}}/{act.__name__}", self._guarded(act)) for act in acts]

    async def rotate(self, request: web.Request, store: KeyStore) -> web.Response:
        given = await _body(request)
        grace = _grace(given.pop("grace", 0))
        if given:
            raise Invalid(f"{next(iter(given))!r}: unknown key.")
        key, row = await store.keys.rotate(request.match_info["name"], grace)
        return await self._changed(row, "rotated", key)

    async def block(self, request: web.Request, store: KeyStore) -> web.Response:
        return await self._changed(await store.keys.block(request.match_info["name"]), "blocked")

    async def unblock(self, request: web.Request, store: KeyStore) -> web.Response:
        return await self._changed(await store.keys.block(request.match_info["name"], False), "unblocked")


async def _body(request: web.Request) -> dict[str, Any]:
    """Raises ``Invalid``."""
    try:
        found = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("Expected a JSON object.")
    return found


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MOST):
        raise Invalid(f"limit: expected a number from 1 to {MOST}.")
    return int(text)


def _grace(given: Any) -> float:
    try:
        return parse_duration(given)
    except ValueError as error:
        raise Invalid(f"grace: {error}") from None


def _problem(status: int, message: str) -> web.Response:
    return _answer({"problems": [message]}, status)


def _answer(told: dict[str, Any], status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"} | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
    return web.json_response(told, status=status, headers=headers)
