"""What the tests of prices share: usages of any kind, and an oracle that counts token by token."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from hypothesis import strategies as st

from gateway.exchange import Usage
from gateway.pricing.rates import STANDS_IN

MILLIONTH = Decimal("0.000001")
PER_TOKEN = ("input", "output", *STANDS_IN)

counts = st.none() | st.integers(0, 40)
usages = st.builds(
    Usage,
    input_tokens=counts, output_tokens=counts, cached_tokens=counts, cache_write_tokens=counts,
    reasoning_tokens=counts, cache_write_1h_tokens=counts, audio_input_tokens=counts, audio_output_tokens=counts,
    image_input_tokens=counts, image_output_tokens=counts,
    service_tier=st.sampled_from([None, "default", "flex", "priority"]),
)  # fmt: skip
"""Also those that contradict themselves: upstreams are not trusted."""
prices = st.decimals(0, Decimal("0.01"), places=20)
sheets = st.fixed_dictionaries({}, optional=dict.fromkeys((*PER_TOKEN, "per_request"), prices))


def price(sheet: Mapping[str, Decimal], name: str) -> Decimal:
    while name not in sheet and name in STANDS_IN:
        name = STANDS_IN[name]
    return sheet.get(name, Decimal(0))


def usd(sheet: Mapping[str, Decimal], used: Usage) -> Decimal:
    """What ``used`` costs: each token gets one label, in the order of the labels, as long as there are tokens."""
    written = used.cache_write_tokens or 0
    kept = min(used.cache_write_1h_tokens or 0, written)
    read = ["cached_input"] * (used.cached_tokens or 0) + ["cache_write_1h"] * kept
    read += ["cache_write"] * (written - kept) + ["audio_input"] * (used.audio_input_tokens or 0)
    read += ["image_input"] * (used.image_input_tokens or 0)
    made = ["audio_output"] * (used.audio_output_tokens or 0) + ["image_output"] * (used.image_output_tokens or 0)
    made += ["reasoning"] * (used.reasoning_tokens or 0)
    labels = _filled(read, used.input_tokens or 0, "input") + _filled(made, used.output_tokens or 0, "output")
    return sum((price(sheet, label) for label in labels), sheet.get("per_request", Decimal(0)))


def _filled(labels: list[str], tokens: int, rest: str) -> list[str]:
    return (labels + [rest] * tokens)[:tokens]
