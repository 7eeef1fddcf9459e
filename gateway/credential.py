"""Where clients put their credential: each SDK has a place of its own."""

from __future__ import annotations

from gateway.exchange import Exchange


def credential(exchange: Exchange) -> str | None:
    """The client's key or token: Bearer (OpenAI), x-api-key (Anthropic), api-key (Azure), x-goog-api-key (Gemini)."""
    headers = exchange.headers
    authorization = headers.get("Authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return headers.get("x-api-key") or headers.get("api-key") or headers.get("x-goog-api-key")
