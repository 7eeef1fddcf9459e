"""The settings of ``gateway.toml``: one frozen class per table, each field followed by its meaning."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, min_len, optional

from gateway.dialects.capabilities import Flags
from gateway.exchange import Principal, Target
from gateway.limits import Limit
from gateway.pricing.settings import Prices
from gateway.secret import Secret, StoreUrl
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
    head: Duration = Duration(0.0)
    """From the request's last byte to the head of the answer; without it ``first_token`` counts for this, too."""
    first_token: Duration = Duration(60.0)
    """From the request's last byte to the first meaningful event of a stream, or to the head of a whole answer."""
    idle: Duration = Duration(60.0)
    """Between two pieces of an answer."""
    total: Duration = Duration(0.0)
    """For all of it. Off by default: a long stream is not a broken one."""


@attrs.frozen(kw_only=True)
class Server:
    """``[server]``: the public listener."""

    host: str = attrs.field(default="127.0.0.1", validator=min_len(1))
    """Address to listen on, or ``unix:/path`` of a socket, reachable as loopback is. Anything but these two needs
    ``[keys]``, or ``[state] keys``, and ``auth`` in the chain, or ``auth_mtls``, or ``auth_jwt``."""
    port: int = attrs.field(default=8080, validator=_PORT)
    """0 takes a free one; a unix socket has none."""
    reuse_port: bool = False
    """Share the ports, also ``[admin]``'s, with another gateway (``SO_REUSEPORT``): a successor can then start before
    this one stops."""
    workers: int = attrs.field(default=1, validator=and_(ge(1), le(256)))
    """Processes. More than one need gunicorn; they share limits, budgets and cached answers through ``[state] redis``,
    and without it each has its own. Worker n (from 0) has its admin listener on ``[admin] port`` + n."""
    max_body: Size = attrs.field(default=Size(64 << 20), validator=_SOME)
    """Largest request body; beyond it the answer is 413."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of proxies whose ``X-Forwarded-For`` is believed, and with ``auth_mtls`` what they say of certificates;
    everybody else's is ignored. A unix socket's peer is 127.0.0.1."""
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
    reader_timeout: Duration = attrs.field(default=Duration(60.0), validator=_SOME)
    """Longest time a client may read nothing of an answer; beyond it the connection is cut and the upstream's too."""
    max_connections_per_peer: int = attrs.field(default=0, validator=ge(0))
    """Connections one address may hold; 0 is no limit. A proxy in front is one address."""


@attrs.frozen(kw_only=True)
class Admin:
    """``[admin]``: the listener of the operators, never the public one. It asks for no key, but for ``token`` where
    keys are made and changed."""

    enabled: bool = True
    """Listen at all."""
    host: str = attrs.field(default="127.0.0.1", validator=min_len(1))
    """Address to listen on."""
    port: int = attrs.field(default=8081, validator=_PORT)
    """0 takes a free one."""
    token: Secret | None = None
    """What ``/keys`` and ``/teams`` want to be shown, as ``Authorization: Bearer``. Without it they are not served."""


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
class Allowance:
    """What a key or a team may use, ``[keys.NAME]`` or ``[teams.NAME]``."""

    requests_per_minute: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """0 is no limit; without it the setting of ``[plugins.rate_limit]`` counts for a key, for a team there is none."""
    tokens_per_minute: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Input and output together; 0 is no limit."""
    max_concurrency: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Calls at once; 0 is no limit."""
    budget: Limit | None = attrs.field(default=None)
    """``{ usd = 20, per = "month" }``: a limit on money."""
    limits: tuple[Limit, ...] = ()
    """Any number of further ones, all of which hold: ``{ tokens = 1_000_000, per = "day", models = ["gpt-*"] }``."""

    @budget.validator
    def _is_money(self, _: attrs.Attribute[Any], value: Limit | None) -> None:
        if value is not None and value.usd is None:
            raise ValueError("'budget': expected an amount of money, usd.")


@attrs.frozen(kw_only=True)
class Key(Allowance):
    """``[keys.NAME]``: a virtual key, and what its holder may do."""

    sha256: str = attrs.field(default="")
    """SHA-256 of the key in hexadecimal; ``gateway keys new NAME`` prints one. The key itself is kept nowhere. Without
    it its holder comes with a certificate (``auth_mtls``)."""
    models: tuple[str, ...] = ("*",)
    """Models it may call; globs such as ``"gpt-*"``."""
    team: str | None = attrs.field(default=None, validator=optional(min_len(1)))
    """One of ``[teams]``: its members count together against its limits, too."""
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    """When the client leaves in the midst of an answer: ``cancel`` ends the call, and what was delivered is estimated;
    ``drain`` reads on to the usage that the provider reports, and pays for all of it."""

    @sha256.validator
    def _is_digest(self, _: attrs.Attribute[str], value: str) -> None:
        if value and not _DIGEST.fullmatch(value):
            raise ValueError("expected the 64 hexadecimal digits of a SHA-256; gateway keys new NAME prints them.")

    def principal(self, name: str) -> Principal:
        """Whom this key stands for."""
        return Principal(
            name,
            self.models,
            self.requests_per_minute,
            self.tokens_per_minute,
            self.max_concurrency,
            self.team,
            self.limits if self.budget is None else (self.budget, *self.limits),
            self.on_disconnect == "drain",
        )


@attrs.frozen(kw_only=True)
class Team(Allowance):
    """``[teams.NAME]``: what its members may use together. Each member's own limits hold besides."""


@attrs.frozen(kw_only=True)
class Pool:
    """``[pool]``: connections to all providers together."""

    max_connections: int = attrs.field(default=1000, validator=ge(0))
    """At once; further calls wait. 0 is no limit."""
    max_per_host: int = attrs.field(default=0, validator=ge(0))
    """At once to one host and port; 0 is no limit."""
    keepalive: Duration = Duration(4.0)
    """How long an idle connection is kept; below the 5 s after which many servers close theirs."""
    max_age: Duration = Duration(300.0)
    """No request is begun on an older connection, so that constant traffic follows a change of a provider's addresses.
    Running answers are not cut. 0 is no limit."""


@attrs.frozen(kw_only=True)
class Retry:
    """``[retry]``: what may be called again, or elsewhere, when a call to a target fails."""

    attempts: int = attrs.field(default=3, validator=and_(ge(1), le(10)))
    """Calls for one request, retries and fallbacks together. 1 calls one target once."""
    budget: float = attrs.field(default=0.2, validator=and_(ge(0.0), le(1.0)))
    """Calls that failures of a target may cause beyond its first calls, as a share of those. 0 allows none."""
    backoff: Duration = Duration(0.25)
    """Longest wait before the first retry of the same target; it doubles with each further one. Waits are drawn
    evenly from zero up."""
    max_backoff: Duration = attrs.field(default=Duration(4.0))
    """Where it stops doubling."""

    @max_backoff.validator
    def _is_no_less(self, _: attrs.Attribute[Duration], value: Duration) -> None:
        if value < self.backoff:
            raise ValueError("'max_backoff' must not be less than 'backoff'.")


@attrs.frozen(kw_only=True)
class Breaker:
    """``[breaker]``: when a failing target is left alone. Each target has a circuit breaker of its own."""

    failures: int = attrs.field(default=5, validator=ge(0))
    """So many failures with no success between them open it; 0 does not look at this."""
    error_rate: float = attrs.field(default=0.5, validator=and_(ge(0.0), le(1.0)))
    """Such a share of failed calls opens it; 0 does not look at this."""
    min_calls: int = attrs.field(default=20, validator=ge(1))
    """Calls within the window from which on the share counts."""
    window: Duration = attrs.field(default=Duration(30.0), validator=_SOME)
    """The time the share is taken over."""
    open_for: Duration = attrs.field(default=Duration(5.0), validator=_SOME)
    """How long an open breaker lets nothing through; then one call at a time shows whether the target is back. Doubles
    each time it is not."""
    max_open: Duration = attrs.field(default=Duration(8.0), validator=_SOME)
    """Where it stops doubling: how long a target that is well again may go unnoticed."""

    @max_open.validator
    def _is_no_less(self, _: attrs.Attribute[Duration], value: Duration) -> None:
        if value < self.open_for:
            raise ValueError("'max_open' must not be less than 'open_for'.")


@attrs.frozen(kw_only=True)
class ProviderConfig:
    """``[providers.NAME]``: an upstream. All keys but these are settings of that provider plugin."""

    type: str = attrs.field(validator=min_len(1))
    """The provider plugin: ``openai_compat``, ``ollama``, ``echo``, …; ``probe`` only watches an upstream's health."""
    max_concurrency: int = attrs.field(default=0, validator=ge(0))
    """Calls at once; further ones wait, each key's in turn. 0 is no limit."""
    queue: int = attrs.field(default=100, validator=ge(0))
    """Calls that may wait for ``max_concurrency``, here and at each target of this provider with a limit of its own.
    One more is refused with 503."""
    queue_timeout: Duration = Duration(30.0)
    """Longest wait; then the call is refused with 503. 0 is no limit."""
    retry_ambiguous: bool = True
    """Repeat a request once whose reused connection died without a byte of an answer, though the provider may have seen
    it; only where a repeat costs tokens and changes nothing there. Off: such a request is a 502."""
    digest: str = ""
    """Not a key of the table but SHA-256 of all of it: what was learnt from a provider is not true of another."""
    base_url: str = ""
    """Not a key of the core's: where the provider's own says it is, or its preset does; whose prices hold there."""


_DERIVED = ("digest", "base_url")
CORE_KEYS = tuple(field.name for field in attrs.fields(ProviderConfig) if field.name not in _DERIVED)
"""Keys of ``[providers.NAME]`` that the core takes itself; a plugin's ``Settings`` cannot have them."""


@attrs.frozen(kw_only=True)
class Model:
    """``[models.NAME]``: a name clients may send, possibly a glob, and who answers to it."""

    targets: tuple[Target, ...] = attrs.field(validator=min_len(1))
    """Tables of ``provider``, ``model`` (the client's name if not given), ``weight`` (1 if not given) and
    ``max_concurrency`` (calls at once; none if not given)."""
    fallbacks: tuple[str, ...] = ()
    """Other names in ``[models]``, tried in this order when all targets fail."""
    context: int = attrs.field(default=0, validator=ge(0))
    """Tokens a request may have, by a rough estimate, for this model to be taken as a fallback; 0 does not look."""


@attrs.frozen(kw_only=True)
class State:
    """``[state]``: where limits, budgets, usage and keys are kept."""

    redis: StoreUrl | None = None
    """``redis://host:6379/0``: limits, budgets and cached answers are shared by all gateways that use it. Without it
    each process has its own. ``env:NAME`` or ``file:/path`` where there is a password in it."""
    redis_timeout: Duration = attrs.field(default=Duration(0.04), validator=_SOME)
    """Longest time a request waits for Redis; what happens then is each plugin's ``without_redis``."""
    redis_prefix: str = attrs.field(default="hookgate", validator=min_len(1))
    """Begins the name of everything stored there. Gateways with one prefix share."""
    ledger: StoreUrl | None = None
    """The database for what the plugin ``ledger`` writes, and for ``keys``: ``sqlite:///gateway.db``, relative to the
    configuration, which is the default, or ``postgresql://host/database``."""
    keys: bool = False
    """Virtual keys and teams are also kept in this database, where ``gateway keys``, ``gateway teams`` and ``[admin]``
    change them at run time. Those of this file win over those of the same name."""


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
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    state: State = State()
    prices: Prices = attrs.field(factory=Prices)
    keys: dict[str, Key] = attrs.field(factory=dict)
    teams: dict[str, Team] = attrs.field(factory=dict)
    providers: dict[str, ProviderConfig] = attrs.field(factory=dict)
    models: dict[str, Model] = attrs.field(factory=dict)
    capabilities: dict[str, Flags] = attrs.field(factory=dict)
    strict: bool = False
    """Refuse a request that a translation cannot carry whole, instead of naming what it left out in
    ``x-gateway-dropped``."""
