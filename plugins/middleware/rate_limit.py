"""Requests and tokens per minute, and calls at once, per principal. Exact in one process; in memory."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from time import monotonic

import attrs
from multidict import istr

from gateway import Exchange, Principal, Reply, Runtime, hookimpl
from gateway.errors import RateLimited

_NOTE = "rate_limit"
_MANY = 1024  # meters; from here on those that tell nothing are dropped: principals of tokens are as many as users are


@attrs.frozen(kw_only=True)
class Settings:
    requests_per_minute: int = attrs.field(default=600, validator=attrs.validators.ge(0))
    """For principals without a limit of their own; 0 is no limit."""
    tokens_per_minute: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Input and output together, for principals without a limit of their own; 0 is no limit."""
    max_concurrency: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Calls at once, for principals without a limit of their own; 0 is no limit."""


class Bucket:
    """A token bucket: ``limit`` at once, refilled evenly over a minute, so there is no window edge to burst over."""

    __slots__ = ("_rate", "_seen", "level", "limit", "limit_text")

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.limit_text = str(limit)
        self.level = float(limit)
        self._rate = limit / 60.0
        self._seen = now

    def allow(self, limit: int, *, at_once: bool) -> None:
        """Another limit from now on. What is used up stays used up; a higher limit adds the difference, ``at_once`` or
        as it refills."""
        self.level = min(float(limit), self.level + (max(0, limit - self.limit) if at_once else 0))
        self.limit = limit
        self.limit_text = str(limit)
        self._rate = limit / 60.0

    def refill(self, now: float) -> float:
        level = self.level + (now - self._seen) * self._rate
        self.level = level = level if level < self.limit else float(self.limit)
        self._seen = now
        return level

    def seconds_until(self, wanted: float) -> float:
        """Seconds until the bucket holds ``wanted``, from its last refill."""
        return max(0.0, (wanted - self.level) / self._rate)


class Meter:
    """What one principal has used."""

    __slots__ = ("max_concurrency", "requests", "running", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.max_concurrency = 0
        self.running = 0

    def allow(self, principal: Principal, settings: Settings, now: float, *, at_once: bool) -> None:
        """Take over the limits the principal has now."""
        requests = _own(principal.requests_per_minute, settings.requests_per_minute)
        tokens = _own(principal.tokens_per_minute, settings.tokens_per_minute)
        self.requests = _bucket(self.requests, requests, now, at_once)
        self.tokens = _bucket(self.tokens, tokens, now, at_once)
        self.max_concurrency = _own(principal.max_concurrency, settings.max_concurrency)

    def tells_nothing(self, now: float) -> bool:
        """A new one would be just like it: nothing runs, nothing is used up."""
        return not self.running and all(
            bucket is None or bucket.refill(now) >= bucket.limit for bucket in (self.requests, self.tokens)
        )


def _bucket(bucket: Bucket | None, limit: int, now: float, at_once: bool) -> Bucket | None:
    if not limit:
        return None
    if bucket is None:
        return Bucket(limit, now)
    bucket.refill(now)
    bucket.allow(limit, at_once=at_once)
    return bucket


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        # With whose limits each was taken over from ``_known``.
        self._meters: dict[str, tuple[Meter, Principal]] = {}
        # A limit that began anew at every reload would be none.
        self._known: OrderedDict[str, Meter] = runtime.keep("meters", OrderedDict)
        self.clock = monotonic

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        principal = exchange.principal or _OPEN
        now = self.clock()
        meter, known = self._meters.get(principal.name, _UNKNOWN)
        if known is not principal:
            meter = self._meter(principal, known, now)
        if meter.max_concurrency and meter.running >= meter.max_concurrency:
            raise _refusal(meter, "Too many requests of this key are running.", 1.0)
        if meter.tokens is not None and meter.tokens.refill(now) <= 0:
            raise _refusal(meter, "This key has used its tokens of this minute.", meter.tokens.seconds_until(1))
        if meter.requests is not None:
            if meter.requests.refill(now) < 1:
                raise _refusal(meter, "This key has used its requests of this minute.", meter.requests.seconds_until(1))
            meter.requests.level -= 1
        meter.running += 1
        exchange.notes[_NOTE] = meter

    def _meter(self, principal: Principal, before: Principal, now: float) -> Meter:
        """The principal's meter with its limits, which are others than ``before`` where its token says so."""
        name = principal.name
        if before is _NOBODY:
            if len(self._known) >= _MANY:
                self._drop(now)
            meter = self._known.setdefault(name, Meter())
            meter.allow(principal, self._settings, now, at_once=True)
        else:
            meter = self._meters[name][0]
            if principal != before:
                # Two tokens of one user, in turns, must not add the difference each time.
                meter.allow(principal, self._settings, now, at_once=False)
        self._meters[name] = meter, principal
        return meter

    def _drop(self, now: float) -> None:
        """Each newcomer makes room of the two oldest: no sweep, and no more meters than twice those that count."""
        for _ in range(2):
            name, meter = next(iter(self._known.items()))
            if meter.tells_nothing(now):
                del self._known[name]
                self._meters.pop(name, None)
            else:
                self._known.move_to_end(name)

    @hookimpl
    def on_reply(self, exchange: Exchange, reply: Reply) -> None:
        meter: Meter | None = exchange.notes.get(_NOTE)
        if meter is not None:
            for name, value in _headers(meter):
                reply.headers[name] = value

    @hookimpl
    def on_finish(self, exchange: Exchange) -> None:
        meter: Meter | None = exchange.notes.pop(_NOTE, None)
        if meter is None:
            return
        meter.running -= 1
        if meter.tokens is not None and exchange.usage is not None and exchange.cache not in ("hit", "coalesced"):
            meter.tokens.refill(self.clock())
            meter.tokens.level -= exchange.usage.total_tokens


_OPEN = Principal("open")
_NOBODY = Principal("")
_UNKNOWN = (Meter(), _NOBODY)


def _own(own: int | None, default: int) -> int:
    return default if own is None else own


# What each header says of a bucket, named as OpenAI does.
_NAMES = {
    kind: (
        istr(f"x-ratelimit-limit-{kind}"),
        istr(f"x-ratelimit-remaining-{kind}"),
        istr(f"x-ratelimit-reset-{kind}"),
    )
    for kind in ("requests", "tokens")
}


def _headers(meter: Meter) -> list[tuple[str, str]]:
    """The caller's own limits; resets are Go durations, as OpenAI writes them."""
    headers: list[tuple[str, str]] = []
    for kind, bucket in (("requests", meter.requests), ("tokens", meter.tokens)):
        if bucket is not None:
            limit, remaining, reset = _NAMES[kind]
            level = bucket.level
            headers += (
                (limit, bucket.limit_text),
                (remaining, str(int(level) if level > 0 else 0)),
                (reset, f"{bucket.seconds_until(bucket.limit):.3f}s"),
            )
    return headers


def _refusal(meter: Meter, message: str, wait: float) -> RateLimited:
    return RateLimited(message, retry_after=ceil(wait), headers=dict(_headers(meter)))
