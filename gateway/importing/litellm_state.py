"""Where LiteLLM keeps things, Redis and its database, as ``[state]``.

Facts: LiteLLM's documentation of caching, of the router and of ``config.yaml``, as of November 2026.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from gateway.importing.fields import Fields
from gateway.state import redis_url

_OURS = "HOOKGATE_REDIS_URL"
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_NUMBER = re.compile(r"[0-9]{1,5}")
_PARTS = ("host", "port", "username", "password", "db", "ssl")
_DATABASE = "DATABASE_URL"


def redis(router: Fields, cache: Fields | None) -> dict[str, Any]:
    """``redis`` and ``redis_prefix``. ``cache`` are the parameters of a cache in Redis, which come first: one Redis
    serves for all."""
    other = _url(router, "redis_")
    url = other if cache is None else _url(cache, "") or _by_environment(cache) or other
    if url is None:
        return {}
    if other and url != other:
        key = "redis_url" if router.get("redis_url") else "redis_host"
        router.note(key, "left out: one Redis serves for limits and cache alike, that of cache_params.")
    (router if cache is None else cache).note(
        None, "[state] redis: limits, budgets and cached answers are shared there; it needs pip install "
        "'hookgate[redis]'.")  # fmt: skip
    namespace = None if cache is None else cache.get("namespace")
    if isinstance(namespace, str) and namespace and namespace.isprintable():
        return {"redis": url, "redis_prefix": namespace}
    return {"redis": url}


def _url(fields: Fields, prefix: str) -> str | None:
    """A URL without a password as it is, any other as a reference; ``None`` if there is no Redis."""
    key = f"{prefix}url"
    if url := fields.get(key):
        if name := fields.variable(key):
            return f"env:{name}?"
        if _is_open(str(url)):
            return str(url)
        fields.note(key, "a URL with a password, or with options [state] redis does not have, is not copied: put it "
                    f"into the environment variable {_OURS}.")  # fmt: skip
        return f"env:{_OURS}?"
    parts = {name: fields.get(prefix + name) for name in _PARTS}
    if not parts["host"]:
        for name in filter(parts.get, _PARTS):
            fields.note(prefix + name, "left out: there is no host beside it.")
        return None
    plain = _plain(parts)
    if plain is None:
        secret = "password" if parts["password"] else "host"
        fields.note(prefix + secret, "is not copied: [state] redis is one URL. Put redis://USER:PASSWORD@HOST:PORT/DB "
                    f"(rediss:// with TLS) into the environment variable {_OURS}.")  # fmt: skip
    return plain or f"env:{_OURS}?"


def _by_environment(fields: Fields) -> str | None:
    """Where LiteLLM looks that is not told where Redis is."""
    if any(fields.get(name) for name in ("redis_startup_nodes", "startup_nodes", "sentinel_nodes")):
        fields.note(None, "not carried over: [state] redis is one server, or one address with several behind it; "
                    "neither a Cluster nor Sentinel is asked where it is.")  # fmt: skip
        return None
    fields.note(None, "no host is given: put the URL of Redis into the environment variable REDIS_URL.")
    return "env:REDIS_URL?"


def _plain(parts: dict[str, Any]) -> str | None:
    """The URL, if it has nothing secret in it and all of it is known."""
    host, port, db = str(parts["host"]), str(parts["port"] or 6379), str(parts["db"] or 0)
    if parts["password"] or parts["username"] or not _HOST.fullmatch(host):
        return None
    if not _NUMBER.fullmatch(port) or not 0 < int(port) < 65536 or not _NUMBER.fullmatch(db):
        return None
    scheme = "rediss" if parts["ssl"] is True else "redis"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" + (f"/{db}" if int(db) else "")


def _is_open(url: str) -> bool:
    try:
        return not redis_url.parse(url).password and "password" not in urlsplit(url).query
    except (ValueError, OSError):
        return False


def ledger(general: Fields) -> dict[str, Any]:
    """``ledger``: who used what goes to the same database, as a reference."""
    if not general.get("database_url"):
        return {}
    name = general.variable("database_url")
    if name is None:
        general.note("database_url", f"is not copied: put it into the environment variable {_DATABASE}.")
    general.note("database_url", "the plugin ledger writes there who used what, into tables of its own; while the "
                 "variable is not set, into gateway.db. Keys, teams, budgets and spend of LiteLLM are not read: "
                 "make keys with gateway keys new NAME.")  # fmt: skip
    general.note("database_url", "needs pip install 'hookgate[postgres]', and a URL without Prisma's own options "
                 "(schema, connection_limit, …).")  # fmt: skip
    return {"ledger": f"env:{name or _DATABASE}?"}
