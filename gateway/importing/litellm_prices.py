"""LiteLLM's custom prices, in ``litellm_params`` or ``model_info``, as ``[prices.models]``.

Over there they are USD for one token, here for a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from gateway.importing.fields import Fields
from gateway.importing.litellm_limits import UNITS
from gateway.importing.litellm_models import PRICE_REASONS, Placed
from gateway.pricing.entries import is_rate, sheets_of
from gateway.pricing.settings import SERVICE_TIERS

_PER_REQUEST = "per_request"
_WITHOUT_OUTPUT = ("embedding", "rerank")
"""``mode`` of what answers with no tokens."""
_SIZES = {"max_output_tokens": "max_output_tokens", "context": "max_input_tokens"}
INFO_REASONS = PRICE_REASONS | {
    "base_model": 'prices are looked up by the name the provider is asked for: write them as '
    '[prices.models."PROVIDER/MODEL"] where that is no model\'s.',
    "access_groups": "the models of a key stand in its table: [keys.NAME] models.",
}  # fmt: skip


def prices(placed: Sequence[Placed]) -> dict[str, Any]:
    """``[prices]``: models by their provider and the name it is asked for. What has no counterpart is noted."""
    found: dict[str, Any] = {}
    for place in placed:
        table = _table(place.deployment.fields, place.deployment.info)
        name = f"{place.provider}/{place.deployment.asked}"
        if table and found.setdefault(name, table) != table:
            place.deployment.info.note(None, f"{name} has other prices already; these are left out.")
    return {"models": found} if found else {}


def left(info: Fields) -> None:
    """Note what stands in ``model_info`` and is no price."""
    others = [name for name in info.names() if name not in INFO_REASONS and not is_rate(name)]
    info.left(INFO_REASONS, others)
    if set(others) - {"id", "mode", *UNITS, *_SIZES.values()}:
        info.note(None, "model_info: but for prices it describes the model to LiteLLM only.")


def _table(params: Fields, info: Fields) -> dict[str, Any]:
    rates: dict[str, float] = {}
    for fields in (info, params):  # LiteLLM takes those of the parameters where both have some
        for name in filter(is_rate, fields.names()):
            if (usd := fields.number(name)) is not None:
                rates[name] = usd
    mode = info.get("mode")
    if not rates:
        return {}
    sheets = sheets_of(rates)
    usual = sheets.pop(("", 0), {})
    if mode in _WITHOUT_OUTPUT:
        usual.setdefault("output", Decimal(0))
    where = params if any(map(is_rate, params.names())) else info
    if not {"input", "output"} <= usual.keys():
        where.note(None, "its prices are not carried over: they need both input_cost_per_token and "
                   "output_cost_per_token here.")  # fmt: skip
        return {}
    table = _listed(usual) | _bigger(sheets, "")
    for tier in dict.fromkeys(tier for tier, _ in sheets if tier):
        if tier in SERVICE_TIERS:
            table[tier] = _listed(sheets.get((tier, 0), {})) | _bigger(sheets, tier)
        else:
            where.note(None, f"its prices for {tier} are not carried over: no provider here reports that.")
    return table | {ours: size for ours, theirs in _SIZES.items() if (size := info.whole(theirs))}


def _bigger(sheets: dict[tuple[str, int], dict[str, Decimal]], tier: str) -> dict[str, Any]:
    """``tiers``: above a size the tier's own price is taken, else the usual one."""
    sizes = sorted({above for name, above in sheets if above and name in ("", tier)})
    found = [
        {"above": above, **_listed({**sheets.get(("", above), {}), **sheets.get((tier, above), {})})} for above in sizes
    ]
    return {"tiers": found} if found else {}


def _listed(sheet: dict[str, Decimal]) -> dict[str, float]:
    """USD for a million, by decimal arithmetic: 0.0000025 is 2.5 and nothing beside it."""
    return {name: _plain(usd if name == _PER_REQUEST else usd.scaleb(6)) for name, usd in sheet.items()}


def _plain(usd: Decimal) -> float:
    return int(usd) if usd == int(usd) else float(usd)
