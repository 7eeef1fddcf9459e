"""Azure OpenAI: OpenAI's API below a resource's own address, with deployments in the path or by the v1 API."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import orjson

from gateway import Exchange, Reply, Runtime, Secret, Target, hookimpl
from gateway.bearer import Token, TokenRefused
from gateway.dialects.presets import Preset
from gateway.http_provider import HttpProvider, HttpSettings, path_of, without
from gateway.openai_provider import edits, translated
from gateway.translation import counted
from gateway.upstream import Endpoint

_V1 = "v1"
_LATEST = "2024-10-21"
"""The last dated version that is no preview."""
_STREAM_USAGE = "2024-09-01"
"""Earlier versions refuse ``stream_options``."""
# The operations of a deployment; all others belong to the resource.
_OF_DEPLOYMENTS = frozenset({"chat", "completions", "embeddings", "images", "audio"})
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_CODE = re.compile(r"[a-z_]{1,64}")


@attrs.frozen(kw_only=True)
class Entra:
    """An application of Microsoft Entra whose tokens the resource takes."""

    tenant: str = attrs.field(validator=attrs.validators.matches_re(r"[A-Za-z0-9.-]+"))
    """Directory, by id or domain."""
    client_id: str
    """The application's id."""
    client_secret: Secret
    """Goes to ``authority`` and nowhere else."""
    authority: str = "https://login.microsoftonline.com"
    """Who gives out the tokens; another one in sovereign clouds."""
    scope: str = "https://cognitiveservices.azure.com/.default"
    """What the tokens are for."""


@attrs.frozen(kw_only=True)
class Settings(HttpSettings):
    base_url: str
    """The resource's endpoint: ``https://NAME.openai.azure.com``."""
    api_version: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.matches_re(r"v1|\d{4}-\d\d-\d\d(-preview)?"))
    )
    """A date, for deployments in the path; ``v1`` for the v1 API, whose requests name the deployment as their model.
    Without it: the client's own ``api-version``, or else 2024-10-21."""
    token: Secret | None = None
    """A bearer token instead of ``api_key``; one in a file may be replaced at any time."""
    entra: Entra | None = None
    """Client credentials instead of either: tokens are fetched and renewed."""
    responses: bool | None = None
    """It serves ``/responses``. By default the v1 API does, and dated versions from 2025-03-01-preview on."""

    def __attrs_post_init__(self) -> None:
        if re.search(r"/openai(/|$)", self.base_url):
            raise ValueError("base_url: is the resource's endpoint, without /openai and what follows.")
        if sum(each is not None for each in (self.api_key, self.token, self.entra)) > 1:
            raise ValueError("api_key: only one of api_key, token and entra can be used.")


class Plugin:
    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        headers: dict[str, str | Secret] = {}
        token = None
        if settings.api_key is not None:
            headers["api-key"] = settings.api_key
        elif settings.token is not None:
            headers["Authorization"] = settings.token.prefixed("Bearer ")
        elif settings.entra is not None:
            authority = runtime.upstream.endpoint(runtime.name, settings.entra.authority, timeouts=settings.timeouts)
            token = Token(runtime.name, _Entra(settings.entra, authority).fetch, runtime.spawn)
        self._version = settings.api_version
        self._models = settings.models or ()
        root = "/openai/v1" if self._version == _V1 else "/openai"
        base_url = settings.base_url.rstrip("/") + root
        self._http = HttpProvider(settings, runtime, headers, base_url, token)
        serves = settings.responses
        if serves is None:
            serves = self._version == _V1 or (self._version or _LATEST) >= "2025-03-01"
        self._native = frozenset({"openai_chat", "openai_responses"} if serves else {"openai_chat"})

    @hookimpl
    async def forward(self, exchange: Exchange, target: Target) -> Reply:
        surface = exchange.surface
        if surface.counts:
            return await counted(exchange)
        query, version = self._query(exchange)
        usage = version == _V1 or version >= _STREAM_USAGE
        if surface.dialect in self._native:
            path = self._path(exchange, target, surface.name in _OF_DEPLOYMENTS, path_of(exchange))
            changed = edits(exchange, target, usage)
            return await self._http.pass_through(exchange, target, path, edits=changed, query=query)
        preset = Preset(stream_usage=usage)
        path = self._path(exchange, target, True, "/chat/completions")
        return await translated(self._http, exchange, target, preset, path, query)

    def _query(self, exchange: Exchange) -> tuple[str, str]:
        """The query to send, and the version of the API it asks for."""
        given = exchange.request.query.get("api-version") if exchange.query else None
        rest = without(exchange.query, "api-version", "key") if exchange.surface.dialect in self._native else ""
        if self._version == _V1:
            return rest, _V1
        version = self._version or given or _LATEST
        return f"{rest}{'&' if rest else ''}api-version={quote(version, safe='')}", version

    def _path(self, exchange: Exchange, target: Target, of_deployment: bool, path: str) -> str:
        if not of_deployment or self._version == _V1:
            return path
        return f"/deployments/{quote(self._http.model(exchange, target), safe='')}{path}"

    @hookimpl
    async def list_models(self) -> Iterable[dict[str, Any]]:
        """The configured ones: a resource lists what could be deployed, not what is."""
        return [{"id": name} for name in self._models]

    @hookimpl
    async def check_health(self) -> str | None:
        query = "" if self._version == _V1 else f"?api-version={self._version or _LATEST}"
        return await self._http.healthy(f"/models{query}")


class _Entra:
    """OAuth 2.0 client credentials (RFC 6749 section 4.4) as Entra has them."""

    def __init__(self, entra: Entra, authority: Endpoint) -> None:
        self._entra = entra
        self._authority = authority

    async def fetch(self) -> tuple[str, float]:
        entra = self._entra
        form = {
            "grant_type": "client_credentials",
            "client_id": entra.client_id,
            "client_secret": entra.client_secret.reveal(),
            "scope": entra.scope,
        }
        path = f"/{entra.tenant}/oauth2/v2.0/token"
        answer = await self._authority.send(None, "POST", path, body=urlencode(form).encode(), headers=_FORM)
        try:
            told = orjson.loads(await answer.read(1 << 20))
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise TokenRefused(f"{entra.authority} answered {answer.status}, not in JSON.")
        token, lifetime = told.get("access_token"), told.get("expires_in")
        if answer.status != 200 or not isinstance(token, str) or not token.isprintable():
            raise TokenRefused(f"{entra.authority} answered {answer.status}, {_reason(told)}.")
        return token, _seconds(lifetime)


def _reason(told: dict[str, Any]) -> str:
    """The error's name and numbers; its description may quote what we sent."""
    error, codes = told.get("error"), told.get("error_codes")
    name = error if isinstance(error, str) and _CODE.fullmatch(error) else "no error named"
    numbers = [str(code) for code in codes if type(code) is int] if isinstance(codes, list) else []
    return " ".join([name, *(f"AADSTS{number}" for number in numbers)])


def _seconds(lifetime: Any) -> float:
    """``expires_in``: a number, or its digits."""
    if isinstance(lifetime, str) and lifetime.isdecimal():
        lifetime = int(lifetime[:9])
    return float(lifetime) if type(lifetime) in (int, float) and lifetime > 0 else 60.0
