"""What exchanges cost: ``runtime.prices``. Each model's price is found once, then a call costs a look-up."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from math import inf
from time import monotonic

import attrs

from gateway.exchange import Exchange, Target
from gateway.pricing import entries, genai, overrides
from gateway.pricing.price import FREE, Price
from gateway.pricing.price_file import entry_for
from gateway.pricing.vendors import Vendor, vendor_of
from gateway.settings import Config, ProviderConfig

log = logging.getLogger("hookgate")
_FRESH = 60.0  # seconds a price is kept that may depend on the time
_MOST = 4096  # models remembered; clients may name any
_MOST_TOLD = 100  # models named in the log
_LONGEST = 200  # characters of a name in the log


@attrs.frozen
class _Known:
    price: Price | None
    until: float = inf
    """``monotonic``."""


class Prices:
    """Of one configuration. ``None`` is a price nobody knows; it is never taken for nothing."""

    def __init__(self, config: Config) -> None:
        self._settings = config.prices
        self._providers = config.providers
        self._vendors = {name: vendor_of(each.type, each.base_url) for name, each in config.providers.items()}
        self._asks_genai = config.prices.genai and genai.is_installed()
        self._known: dict[tuple[str, str | None], _Known] = {}
        self._told: set[str] = set()

    async def load(self) -> None:
        """Import what the first price would wait for, in a thread. Plugins that will ask await it in ``on_startup``."""
        if self._asks_genai:
            await asyncio.to_thread(genai.load)

    def of(self, target: Target, model: str | None) -> Price | None:
        """The price of ``target``, which is asked for ``model`` where it names none itself."""
        place = (target.provider, target.model or model)
        known = self._known.get(place)
        if known is None or known.until < monotonic():
            known = self._remembered(place)
        return known.price

    def cost(self, exchange: Exchange) -> int | None:
        """Nano-USD an exchange cost; 0 where the answer was there already, ``None`` where nobody knows.

        A model without a price is named in the log, once, when it has first been used.
        """
        if exchange.cache in ("hit", "coalesced"):
            return 0
        if exchange.target is None:
            return None
        price = self.of(exchange.target, exchange.model)
        if price is FREE:
            return 0
        if exchange.usage is None:
            return None
        if price is None:
            self._tell(exchange.target, exchange.model)
            return None
        return price.cost(exchange.usage)

    def settle(self, exchange: Exchange) -> int | None:
        """``cost``, found out once: kept as ``exchange.cost``."""
        if exchange.cost is None:
            exchange.cost = self.cost(exchange)
        return exchange.cost

    def _remembered(self, place: tuple[str, str | None]) -> _Known:
        self._known.pop(place, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        known = self._known[place] = self._find(*place)
        return known

    def _find(self, provider: str, model: str | None) -> _Known:
        own = overrides.given_for(self._settings.models, provider, model) if model is not None else None
        if own is not None and own[1].factor is None:
            return _Known(overrides.price_of(*own))
        config = self._providers.get(provider)
        if config is not None and config.type in self._settings.free:
            return _Known(FREE)
        if model is None:
            return _Known(None)
        known = self._listed(provider, config, model)
        if own is not None and known.price is not None:
            return attrs.evolve(known, price=overrides.discounted(known.price, *own))
        return known

    def _listed(self, provider: str, config: ProviderConfig | None, model: str) -> _Known:
        """What the file says, else genai-prices."""
        now = datetime.now(UTC)
        vendor = self._vendors.get(provider)
        found = entry_for(self._settings.table, provider, vendor, model)
        if found is not None and (price := entries.price_of(*found, now)) is not None:
            return _Known(price, monotonic() + _FRESH if entries.changes(found[1]) else inf)
        address = config.base_url if config is not None else ""
        if not self._asks_genai or not (vendor or address):
            return _Known(None)
        return _Known(self._genai(vendor, address, model, now), monotonic() + _FRESH)

    def _genai(self, vendor: Vendor | None, address: str, model: str, now: datetime) -> Price | None:
        if vendor is not None and not vendor.genai:
            return None
        return genai.price_of(vendor.genai if vendor is not None else "", address, model, now)

    def _tell(self, target: Target, model: str | None) -> None:
        name = target.name if target.model else f"{target.provider}/{model}"
        if name in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(name)
        log.warning("no price is known for %r: what it costs is not counted ([prices])", name[:_LONGEST])
