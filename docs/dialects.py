"""Writes ``docs/reference/dialects.md``: runs every translation on the probes and tells what became of each.

python -m docs.dialects          write the page
python -m docs.dialects --check  exit 1 if the page differs from what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from docs.probes import ONLY, PLAIN, PROBES
from gateway.dialects import anthropic_messages, bedrock_converse, cohere, gemini, ollama, openai_chat_provider
from gateway.dialects.models import Models
from gateway.dialects.registry import CLIENTS
from gateway.errors import InvalidRequest

PAGE = Path(__file__).parent / "reference/dialects.md"
_of = Models().of
Translate = Callable[[Mapping[str, Any]], tuple[Any, list[str]]]


@attrs.frozen
class Provider:
    name: str
    """Heading of its column."""
    model: str
    """An upstream model, whose capabilities decide."""
    translate: Translate
    same: frozenset[str] = frozenset()
    """Clients whose bytes it takes unchanged."""


def _provider(name: str, model: str, module: Any, *same: str) -> Provider:
    return Provider(name, model, lambda chat: module.request_from_chat(chat, model, caps=_of(model)), frozenset(same))


PROVIDERS = (
    _provider("openai_compat, azure_openai", "gpt-5.2", openai_chat_provider, "openai_chat", "openai_responses"),
    _provider("anthropic, vertex (Anthropic)", "claude-sonnet-4-5", anthropic_messages, "anthropic_messages"),
    _provider("gemini, vertex (Google)", "gemini-2.5-pro", gemini, "gemini"),
    _provider("bedrock", "anthropic.claude-sonnet-4-5-v1:0", bedrock_converse),
    _provider("cohere", "command-a-03-2025", cohere),
    Provider("ollama", "llama3.2", lambda chat: ollama.chat_request(chat, "llama3.2", options={}, keep_alive=None)),
)
CHAT_ONLY = attrs.evolve(PROVIDERS[0], name="openai_compat with `responses = false`", same=frozenset({"openai_chat"}))
SPEAK = {
    "openai_chat": "Chat Completions",
    "openai_responses": "Responses",
    "anthropic_messages": "Anthropic Messages",
    "gemini": "Gemini generateContent",
}
UNCHANGED, TRANSLATED, NOTHING = "unchanged", "translated", "nothing to say"


@attrs.frozen
class Fate:
    """What became of one feature on one way."""

    word: str
    dropped: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        if self.dropped:
            names = ", ".join(f"`{name}`" for name in self.dropped)
            return f"{'partly' if self.word == TRANSLATED else 'dropped'}: {names}"
        return f"refused: {self.reason}" if self.reason else self.word


def fate(feature: str, client: str, provider: Provider) -> Fate:
    """Ask for ``feature`` as a client of ``client`` does, and see what would be sent to ``provider``."""
    if client in provider.same:
        return Fate(UNCHANGED)
    asking = {**PLAIN[client], **PROBES[feature][client]}
    plain = _less(asking, ONLY[feature]) if feature in ONLY else PLAIN[client]
    try:
        sent, dropped = _sent(asking, client, provider)
    except InvalidRequest as error:
        return Fate("", reason=error.message)
    without, before = _sent(plain, client, provider)
    lost = tuple(name for name in dropped if name not in before)
    return Fate(TRANSLATED if sent != without else NOTHING, lost)


def _less(value: Any, names: frozenset[str]) -> Any:
    """``value`` without the fields called ``names``, at any depth."""
    if isinstance(value, list):
        return [_less(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: _less(inner, names) for name, inner in value.items() if name not in names}


def _sent(body: dict[str, Any], client: str, provider: Provider) -> tuple[Any, list[str]]:
    chat, dropped = CLIENTS[client].request_to_chat({"model": "m", **body})
    sent, more = provider.translate(chat)
    return sent, [*dropped, *more]


def page() -> str:
    parts = [_INTRODUCTION]
    for client, title in SPEAK.items():
        others = _columns(client)
        same = ", ".join(each.name for each in PROVIDERS if client in each.same)
        parts.append(f"## Clients of {title}\n\nUnchanged to: {same}.\n")
        rows = [["", *(f"{each.name}" for each in others)], ["---"] * (len(others) + 1)]
        for feature, asked in PROBES.items():
            if client in asked:
                rows.append([feature, *(str(fate(feature, client, each)).replace("|", "\\|") for each in others)])
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    return "\n".join(parts)


def _columns(client: str) -> list[Provider]:
    others = [provider for provider in PROVIDERS if client not in provider.same]
    return [CHAT_ONLY, *others] if client == "openai_responses" else others


_MODELS = "\n".join(f"- {each.name}: `{each.model}`" for each in PROVIDERS)
_INTRODUCTION = f"""# What a translation carries

<!-- Written by `make docs` (docs/dialects.py); edits belong into docs/probes.py. -->

Where client and provider speak the same dialect, bytes pass unchanged and nothing on this page applies. Otherwise the
request is translated, and for each feature one of these happens:

- **translated**: the provider is asked for it, in its own words.
- **partly**, **dropped**: what follows is not carried; the answer names it in `x-gateway-dropped`.
- **refused**: leaving it out would change the question; the answer is a 400 with this message.
- **nothing to say**: the provider does it anyway, or the field asks for nothing there.

Each cell was found out by translating a request that asks for the feature. What models of one provider can take
differs (`[capabilities]`); the tables hold for

{_MODELS}
"""


def main(arguments: list[str]) -> int:
    text = page()
    if "--check" in arguments:
        return int(not PAGE.is_file() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
