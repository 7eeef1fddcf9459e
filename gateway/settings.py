"""The settings of ``gateway.toml``: one frozen class per table, each field followed by its meaning."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import attrs
from attrs.validators import and_, ge, gt, le, min_len, optional

from gateway.exchange import Target
from gateway.units import Duration, Size

DEFAULT_CHAIN = (
    "request_id",  # first: everything after it carries the id
    "logging",  # outside of all that may refuse, so that refusals are logged …
    "metrics",  # … and counted
    "auth",  # before anything that costs: strangers get no further
    "rate_limit",  # limits are per principal, whom auth has found
    "cache",  # last: hits are authenticated, counted and limited like any other answer
)
_PORT = and_(ge(0), le(65535))
_SOME: Any = gt(0)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@attrs.frozen(kw_only=True)
class Timeouts:
    """Time limits of calls to one provider. 0 is no limit."""

    connect: Duration = Duration(5.0)
    """For name, TCP and TLS."""
    first_token: Duration = Duration(60.0)
    """From the request's last byte to the head of the answer."""
    idle: Duration = Duration(60.0)
    """Between two pieces of an answer."""
    total: Duration = Duration(0.0)
    """For all of it. Off by default: a long stream is not a broken one."""


@attrs.frozen(kw_only=True)
class Server:
    """``[server]``: the public listener."""

    host: str = attrs.field(default="127.0.0.1", validator=min_len(1))
    """Address to listen on, or ``unix:/path`` of a socket, reachable as loopback is. Anything but these two needs
    ``[keys]`` and ``auth`` in the chain."""
    port: int = attrs.field(default=8080, validator=_PORT)
    """0 takes a free one; a unix socket has none."""
    reuse_port: bool = False
    """Share the ports, also ``[admin]``'s, with another gateway (``SO_REUSEPORT``): a successor can then start before
    this one stops."""
    workers: int = attrs.field(default=1, validator=and_(ge(1), le(256)))
    """Processes. More than one need gunicorn; limits and cache are then each worker's own, and worker n
    (from 0) has its admin listener on ``[admin] port`` + n."""
    max_body: Size = attrs.field(default=Size(64 << 20), validator=_SOME)
    """Largest request body; beyond it the answer is 413."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of proxies whose ``X-Forwarded-For`` is believed; everybody else's is ignored."""
    drain_delay: Duration = Duration(0.0)
    """Time between failing ``/health/ready`` and closing the listener when the gateway stops, for a balancer to notice.
    """
    shutdown_grace: Duration = Duration(30.0)
    """Time running answers have to finish in when the gateway stops."""
    head_timeout: Duration = attrs.field(default=Duration(15.0), validator=_SOME)
    """Longest time for a request's head, from its first byte or the connection's start; beyond it the connection is
    closed."""
    body_timeout: Duration = attrs.field(default=Duration(60.0), validator=_SOME)
    """Longest pause inside a request body; beyond it the answer is 408."""
    body_total: Duration = attrs.field(default=Duration(600.0), validator=_SOME)
    """Longest time for a whole request body."""
    max_connections_per_peer: int = attrs.field(default=0, validator=ge(0))
    """Connections one address may hold; 0 is no limit. A proxy in front is one address."""


@attrs.frozen(kw_only=True)
class Admin:
    """``[admin]``: the listener of the operators, never the public one. It asks for no key."""

    enabled: bool = True
    """Listen at all."""
    host: str = attrs.field(default="127.0.0.1", validator=min_len(1))
    """Address to listen on."""
    port: int = attrs.field(default=8081, validator=_PORT)
    """0 takes a free one."""


@attrs.frozen(kw_only=True)
class Plugins:
    """``[plugins]``: which plugins run, in which order. ``[plugins.NAME]`` are the settings of one of them."""

    folders: tuple[str, ...] = ("plugins",)
    """Where plugins of your own lie; relative to the configuration file."""
    chain: tuple[str, ...] = DEFAULT_CHAIN
    """Names of the middleware, outermost first."""
    tables: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    """The raw settings tables by plugin name; each plugin's ``Settings`` give them their meaning."""


@attrs.frozen(kw_only=True)
class Key:
    """``[keys.NAME]``: a virtual key, and what its holder may do."""

    sha256: str = attrs.field()
    """SHA-256 of the key in hexadecimal; ``gateway keys new NAME`` prints one. The key itself is kept nowhere."""
    models: tuple[str, ...] = ("*",)
    """Models it may call; globs such as ``"gpt-*"``."""
    requests_per_minute: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """0 is no limit; without it the setting of ``[plugins.rate_limit]`` counts."""
    tokens_per_minute: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Input and output together; 0 is no limit."""
    max_concurrency: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Calls at once; 0 is no limit."""

    @sha256.validator
    def _is_digest(self, _: attrs.Attribute[str], value: str) -> None:
        if not _DIGEST.fullmatch(value):
            raise ValueError("expected the 64 hexadecimal digits of a SHA-256; gateway keys new NAME prints them.")


@attrs.frozen(kw_only=True)
class Pool:
    """``[pool]``: connections to all providers together."""

    max_connections: int = attrs.field(default=1000, validator=ge(0))
    """At once; further calls wait. 0 is no limit."""
    max_per_host: int = attrs.field(default=0, validator=ge(0))
    """At once to one host and port; 0 is no limit."""
    keepalive: Duration = Duration(4.0)
    """How long an idle connection is kept; below the 5 s after which many servers close theirs."""


@attrs.frozen(kw_only=True)
class ProviderConfig:
    """``[providers.NAME]``: an upstream. All keys but ``type`` are settings of that provider plugin."""

    type: str = attrs.field(validator=min_len(1))
    """The provider plugin: ``openai_compat``, ``ollama``, ``echo``, …; ``probe`` only watches an upstream's health."""
    digest: str = ""
    """Not a key of the table but SHA-256 of all of it: what was learnt from a provider is not true of another."""


@attrs.frozen(kw_only=True)
class Model:
    """``[models.NAME]``: a name clients may send, possibly a glob, and who answers to it."""

    targets: tuple[Target, ...] = attrs.field(validator=min_len(1))
    """Tables of ``provider``, ``model`` (the client's name if not given) and ``weight`` (1 if not given)."""
    fallbacks: tuple[str, ...] = ()
    """Other names in ``[models]``, tried in this order when all targets fail."""


@attrs.frozen(kw_only=True)
class State:
    """``[state]``: where limits and usage are shared. Empty so far: this process keeps them itself."""


@attrs.frozen(kw_only=True)
class Config:
    """All of ``gateway.toml``."""

    default_provider: str | None = None
    """Gets the models nobody lists, and ``/v1/…`` paths that name no model. Without it such requests are a 404."""
    models_ttl: Duration = Duration(600.0)
    """How long the providers' lists of models are kept."""
    allow_inline_secrets: bool = False
    """Accept secrets in this file instead of ``env:NAME`` and ``file:/path``; its owner alone may then read it."""
    server: Server = Server()
    admin: Admin = Admin()
    plugins: Plugins = attrs.field(factory=Plugins)
    pool: Pool = Pool()
    state: State = State()
    keys: dict[str, Key] = attrs.field(factory=dict)
    providers: dict[str, ProviderConfig] = attrs.field(factory=dict)
    models: dict[str, Model] = attrs.field(factory=dict)
