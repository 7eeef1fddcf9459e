"""A limit: so much of something, within some time, of some models. What ``limits`` in ``gateway.toml`` is made of."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

import attrs
from attrs.validators import ge, gt, optional

Unit = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency", "usd"]
Per = Literal["minute", "hour", "day", "week", "month", "total"]

UNITS: tuple[Unit, ...] = ("requests", "tokens", "input_tokens", "output_tokens", "concurrency", "usd")
SECONDS: dict[str, int] = {"minute": 60, "hour": 3600, "day": 86400}
"""Sliding windows: at most the limit within any stretch of so many seconds."""
CALENDAR = ("day", "week", "month", "total")
"""What money is counted by: days, weeks from Monday and months of the calendar, in UTC; or for ever."""
NANO = 1_000_000_000
"""Money is a whole number of these parts of a dollar."""

_AMOUNT: Any = optional(ge(0))


@attrs.frozen(kw_only=True)
class Limit:
    """An entry of ``limits``: one of the six amounts, and what it counts."""

    requests: int | None = attrs.field(default=None, validator=_AMOUNT)
    tokens: int | None = attrs.field(default=None, validator=_AMOUNT)
    """Input and output together."""
    input_tokens: int | None = attrs.field(default=None, validator=_AMOUNT)
    output_tokens: int | None = attrs.field(default=None, validator=_AMOUNT)
    concurrency: int | None = attrs.field(default=None, validator=_AMOUNT)
    """Calls at once; has no ``per``."""
    usd: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    """A budget in US dollars. Reserved and spent money together never exceed it."""
    models: tuple[str, ...] = ("*",)
    """Globs of the models it is about, by the names clients send; they count together."""
    per_model: bool = False
    """Each model counts for itself."""
    per: Per | None = attrs.field(default=None)
    """``minute``, ``hour``, ``day``; of money: ``day``, ``week``, ``month``, ``total``, which is for ever."""

    @per.validator
    def _fits(self, _: attrs.Attribute[Any], value: Per | None) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError(f"'per': expected one of {', '.join(UNITS)} beside it, and no other.")
        choices = () if given[0] == "concurrency" else CALENDAR if given[0] == "usd" else tuple(SECONDS)
        if choices and value not in choices:
            raise ValueError(f"'per': of {given[0]} expected one of {', '.join(choices)}.")
        if not choices and value is not None:
            raise ValueError("'per': calls at once are counted at each moment.")

    @property
    def unit(self) -> Unit:
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def amount(self) -> int:
        """In the unit; money in nano-dollars."""
        if self.usd is not None:
            return round(self.usd * NANO)
        return int(getattr(self, self.unit))

    def concerns(self, model: str | None) -> bool:
        """Whether a request for ``model`` counts. One that names no model counts where all do."""
        if self.models == ("*",):
            return True
        return model is not None and any(fnmatchcase(model, pattern) for pattern in self.models)
