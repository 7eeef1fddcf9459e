"""What ``[prices]`` must be beyond its types: the file it names is read here, and its mistakes are the table's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.document import Document, dotted
from gateway.pricing import genai, price_file
from gateway.pricing.settings import FREE_TYPES
from gateway.structure import did_you_mean

if TYPE_CHECKING:
    from gateway.settings import Config

_MOST = 20  # mistakes of one file that are told


def check_prices(document: Document, config: Config) -> None:
    """Fill ``config.prices.table`` from the file, and tell what is wrong."""
    _read(document, config)
    if document.table("prices").get("genai") is True and not genai.is_installed():
        document.problem(("prices", "genai"), "prices.genai: needs genai-prices: pip install 'hookgate[cost]'.")
    types = {each.type for each in config.providers.values()}.union(FREE_TYPES)
    for path, kind in document.find("prices", "free", "*"):
        if isinstance(kind, str) and kind not in types:
            hint = did_you_mean(kind, types)
            document.warn(path, f"{dotted(path)}: no provider is of type '{kind}'.{hint}")


def _read(document: Document, config: Config) -> None:
    if not config.prices.file:
        return
    path = document.path.parent / config.prices.file
    table, mistakes = price_file.read(path)
    config.prices.table.update(table)
    for wrong in mistakes[:_MOST]:
        document.problem(("prices", "file"), f"prices.file: {path}: {wrong}")
    if more := mistakes[_MOST:]:
        document.problem(("prices", "file"), f"prices.file: {path}: {len(more)} more models are wrong.")
