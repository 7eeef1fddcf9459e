"""What may be done about a call that failed: how long to wait, what to call next, what the target's breaker learns."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import attrs
import orjson

from gateway.errors import UpstreamError, UpstreamRefused
from gateway.settings import Retry

LONGEST = 86400.0
"""Seconds; a provider that asks for more is not believed: dates, milliseconds and epochs come in seconds' place."""
PAUSE = 1.0
"""Seconds a target is left alone that answers 429 without saying for how long."""
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def retry_after(headers: Mapping[str, str], body: bytes, wall: float) -> float | None:
    """Seconds until an upstream wants to be called again; ``None`` where it does not say, or says what cannot be meant.

    Read are ``retry-after-ms`` (OpenAI, Azure), ``Retry-After`` as seconds or date (RFC 9110 section 10.2.3) and the
    ``google.rpc.RetryInfo`` of a Gemini error ``body``; the first one that holds counts. ``headers`` are
    case-insensitive; ``wall`` is ``time.time()``. Nothing is said by what is malformed, negative, a date that is past,
    or over ``LONGEST``.
    """
    seconds = _seconds(headers.get("retry-after-ms"), 0.001)
    if seconds is None and (value := headers.get("Retry-After")) is not None:
        seconds = _seconds(value, 1.0)
        if seconds is None:
            seconds = _until(value, wall)
    if seconds is None and b'"retryDelay"' in body:
        seconds = _retry_info(body)
    return seconds


def _seconds(value: Any, unit: float) -> float | None:
    if not isinstance(value, str) or not _NUMBER.fullmatch(text := value.strip()):
        return None
    seconds = float(text) * unit
    return seconds if seconds <= LONGEST else None


def _until(value: str, wall: float) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        # The asctime form names no zone, and UTC is meant.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= LONGEST else None


def _retry_info(body: bytes) -> float | None:
    """``{"error": {"details": [{"@type": "…RetryInfo", "retryDelay": "34.4s"}]}}``, also as the one item of a list."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, list) and document:
        document = document[0]
    for key in ("error", "details"):
        document = document.get(key) if isinstance(document, dict) else None
    for detail in document if isinstance(document, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _RETRY_INFO:
            delay = detail.get("retryDelay")
            return _seconds(delay[:-1], 1.0) if isinstance(delay, str) and delay.endswith("s") else None
    return None


def backoff(attempt: int, settings: Retry, chance: Callable[[], float] = random.random) -> float:
    """Seconds to wait before retry number ``attempt``, from 0: full jitter, so that callers do not come back at once.

    ``chance`` draws evenly from [0, 1). See "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return chance() * min(settings.max_backoff, settings.backoff * 2.0 ** min(attempt, 64))


@attrs.frozen
class Verdict:
    """What a failed call allows, and what it says of its target."""

    fallback: bool
    """Another target may be called."""
    again: bool
    """The same target may be called."""
    failure: bool = False
    """The target failed: its breaker counts it. Otherwise the call tells nothing (``TargetState.abandoned``)."""
    cooldown: float = 0.0
    """Seconds in which the target must not be called."""


def judge(error: UpstreamError, repeatable: bool) -> Verdict:
    """What ``error`` of a call means. ``repeatable``: a repeat only costs tokens; else nothing is done twice."""
    if isinstance(error, UpstreamRefused):
        return _refused(error, error.upstream_status or 502, repeatable)
    may = error.fallback and (repeatable or not error.sent)
    return Verdict(may, may, True, error.retry_after or 0.0)


def _refused(error: UpstreamRefused, status: int, repeatable: bool) -> Verdict:
    if status == 429:
        # It was not carried out, whatever it is.
        cooldown = PAUSE if error.retry_after is None else error.retry_after
        return Verdict(error.fallback, error.fallback, cooldown=cooldown)
    may = error.fallback and repeatable
    if status in (402, 501):  # our account there is empty, or it has no such route; another target may have
        return Verdict(may, False)
    if status < 500 and status != 408:
        return Verdict(False, False)
    # A 408 was not the target's slowness, but ours or our client's.
    return Verdict(may, may, status >= 500, error.retry_after or 0.0)
