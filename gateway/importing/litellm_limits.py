"""LiteLLM's limits and budgets as those of ``[plugins.rate_limit]``.

Facts: LiteLLM's documentation of ``config.yaml``, load balancing and budgets, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gateway.importing.fields import Fields
from gateway.importing.litellm_models import Placed

UNITS = {"rpm": "requests", "tpm": "tokens", "itpm": "input_tokens", "otpm": "output_tokens"}
"""What LiteLLM calls a deployment's limits for a minute."""
_DURATION = re.compile(r"(\d{1,9}) ?(s|m|h|d|w|mo)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MONTHS = range(28, 32)  # days
_PERIODS = {"day": "a day", "week": "a week", "month": "a month"}
_PRICELESS = (
    "prices come from [prices] or pip install 'hookgate[cost]'; what has none is refused with 402, and "
    '[plugins.rate_limit] unknown_price = "allow" lets it pass uncounted, as LiteLLM does. What LiteLLM has spent '
    "is not known here; without the plugin ledger or Redis a restart forgets it, too."
)
_OF_NAME = "counts for the name that clients send ([plugins.rate_limit] total), its deployments added up."
_REFUSED = "Beyond it the answer is 429, and no fallback is asked."
_SPENT = "Beyond it the answer is 402, and no fallback is asked."
_OF_ONE_PERIOD = "a budget is for a day, week or month of the calendar, or for ever."
_KEY_DEFAULTS = {
    "rpm_limit": "requests_per_minute", "tpm_limit": "tokens_per_minute", "max_parallel_requests": "max_concurrency",
}  # fmt: skip
_KEY_REASONS = {
    "models": "the models of a key stand in its table: [keys.NAME] models.",
    "duration": "keys do not expire: take one out of the file.",
    "team_id": "the team of a key stands in its table: [keys.NAME] team.",
}


def settings(
    placed: Sequence[Placed], names: Sequence[str], aliases: Mapping[str, str], litellm: Fields, general: Fields
) -> dict[str, Any]:
    """``[plugins.rate_limit]``. ``names`` are all that clients may send, ``aliases`` lead from some to others."""
    found: dict[str, Any] = {"requests_per_minute": 0, **_key_defaults(litellm.inner("default_key_generate_params"))}
    total = [*_of_models(placed, names, aliases), *_budget(litellm)]
    if limit := general.whole("global_max_parallel_requests"):
        total.append({"concurrency": limit})
    return found | ({"total": total} if total else {})


def _of_models(placed: Sequence[Placed], names: Sequence[str], aliases: Mapping[str, str]) -> list[dict[str, Any]]:
    groups: dict[str, list[Fields]] = {}
    for place in placed:
        groups.setdefault(place.deployment.name, []).append(place.deployment.fields)
    found: list[dict[str, Any]] = []
    for name, group in groups.items():
        called = [name, *(alias for alias, model in aliases.items() if model == name)]
        wide = [other for other in names if other not in called and fnmatchcase(other, name)]
        models = [re.sub(r"[\[?]", r"[\g<0>]", each) for each in called]
        for key, unit in UNITS.items():
            if amount := _sum(group, key, name, wide):
                found.append({unit: int(amount), "per": "minute", "models": models})
        found += _budget_of_model(group, name, models, wide)
    return found


def _sum(group: Sequence[Fields], key: str, name: str, wide: Sequence[str], beyond: str = _REFUSED) -> float:
    """What the deployments of a name may do together; 0 is no limit."""
    given = [fields.number(key) for fields in group]
    limited = [fields for fields, amount in zip(group, given, strict=True) if amount]
    if wide:
        told = f"not carried over: {name} takes in other names here, which would count, too."
    elif len(limited) < len(group):
        told = f"not carried over: another deployment of {name} has none, and so the name has none."
    else:
        told = f"{_OF_NAME} {beyond}"
    for fields in limited:
        fields.note(key, told)
    return 0 if wide or len(limited) < len(group) else sum(filter(None, given))


def _budget_of_model(
    group: Sequence[Fields], name: str, models: Sequence[str], wide: Sequence[str]
) -> list[dict[str, Any]]:
    periods = {_period(fields) for fields in group if fields.get("max_budget") is not None}
    for fields in group:
        fields.get("budget_duration")
    if len(periods) > 1 or "" in periods:
        for fields in group:
            if fields.get("max_budget") is not None:
                fields.note("max_budget", f"not carried over: {_OF_ONE_PERIOD}")
        return []
    usd = _sum(group, "max_budget", name, wide, _SPENT)
    return [{"usd": usd, "per": periods.pop(), "models": models}] if usd else []


def _budget(fields: Fields) -> list[dict[str, Any]]:
    """``max_budget`` of all keys together."""
    usd = fields.number("max_budget")
    per = _period(fields)
    if not usd:  # over there 0 is no budget
        return []
    if not per:
        fields.note("max_budget", f"not carried over: {_OF_ONE_PERIOD}")
        return []
    fields.note("max_budget", _PRICELESS)
    return [{"usd": usd, "per": per}]


def _period(fields: Fields) -> str:
    """``day``, ``week``, ``month`` or ``total``; empty if it is none of them."""
    value = fields.get("budget_duration")
    if value is None:
        return "total"
    match = _DURATION.fullmatch(str(value))
    if match is None:
        return ""
    number, unit = int(match[1]), match[2]
    seconds = 0 if unit == "mo" else number * _SECONDS[unit]
    days, rest = divmod(seconds, 86400)
    if (unit, number) == ("mo", 1) or (days in _MONTHS and not rest):
        per = "month"
    else:
        per = {86400: "day", 7 * 86400: "week"}.get(seconds, "")
    if per:
        fields.note(
            "budget_duration", f"{match[0]} became {_PERIODS[per]} of the calendar (weeks from Monday), in UTC."
        )
    return per


def _key_defaults(fields: Fields) -> dict[str, Any]:
    """What keys get that say nothing of it themselves."""
    found: dict[str, Any] = {ours: limit for theirs, ours in _KEY_DEFAULTS.items() if (limit := fields.whole(theirs))}
    if limits := _budget(fields):
        found["limits"] = limits
    if found:
        fields.note(None, "default_key_generate_params: counts for each key without such a limit in its own table.")
    fields.left(_KEY_REASONS)
    return found
