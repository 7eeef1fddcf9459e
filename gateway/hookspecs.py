"""Every hook a plugin can implement, in the order they run.

Mark a method of your ``Plugin`` class with ``@hookimpl`` and give it the name and parameters of a function
below; parameters you do not need may be left out. Where a spec is ``async def``, the implementation may be
``async def`` or plain ``def``. pluggy checks names, parameters and order when the gateway starts; requests then
walk tuples of bound methods, in the order of ``chain`` in ``gateway.toml``. Wrappers are refused on these hooks:
pluggy's wrappers cannot await.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from gateway.exchange import Event, Exchange, Reply, Target

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.runtime import Runtime

PROJECT = "hookgate"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
async def on_startup(runtime: Runtime) -> None:
    """The generation is about to serve. Runs in chain order, then providers; an error refuses the start.

    At a reload the generation before still serves, with what it holds open, and goes on if this one is refused.
    """


@hookspec
async def on_request(exchange: Exchange) -> Reply | None:
    """A request arrived: headers are there, the body is not read unless you ``await exchange.read()``.

    Runs in chain order. Returning a ``Reply`` short-circuits: no later hook's ``on_request``, no provider. Raising
    one of ``gateway.errors`` refuses with it; any other exception refuses with 500.
    """


@hookspec
async def select(exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target] | None:
    """Order the candidate ``targets``, best first. The first answer that is not ``None`` decides.

    ``runtime.targets.of(target)`` knows how a target is; ``gateway.selection`` has what such hooks share.
    """


@hookspec
async def forward(exchange: Exchange, target: Target) -> Reply:
    """Providers only: send the exchange to ``target`` and return its reply, whole or streamed.

    Raise ``UpstreamError`` when there is no reply to give; another target may then be tried.
    """


@hookspec
async def on_reply(exchange: Exchange, reply: Reply) -> None:
    """A reply is there and its head is not sent: change status, headers or a whole body.

    Runs in reverse chain order, once, also for short-circuits and errors. An exception turns the reply into a 500.
    """


@hookspec
def on_event(exchange: Exchange, event: Event) -> None:
    """One server-sent event of a streamed reply. Assign ``event.data`` to change it.

    Streams are only taken apart when a loaded plugin has this hook. A stream that several clients share is seen once,
    with the exchange that called for it, which may have finished: its client may leave before the others.
    """


@hookspec
async def on_error(exchange: Exchange, error: Exception) -> Exception | None:
    """The exchange failed with ``error``; an exception you return takes its place."""


@hookspec
async def on_finish(exchange: Exchange) -> None:
    """The last byte is sent or the exchange has failed: count, log, give back what ``on_request`` took.

    Runs in reverse chain order, exactly once, also when the client is gone and also for plugins whose
    ``on_request`` was not reached. An exception here is logged and harms nobody.
    """


@hookspec
async def list_models() -> Iterable[dict[str, Any]]:
    """Providers only: the models served now, as OpenAI model objects (``id`` required)."""


@hookspec
async def check_health() -> str | None:
    """Return nothing when well; a short reason or an ``UpstreamError`` when not. Has its own time limit."""


@hookspec
def routes() -> Iterable[web.RouteDef]:
    """Extra aiohttp routes on the public listener; they need a key like every other route."""


@hookspec
def commands(cli: Any) -> None:
    """Add sub-commands to the ``gateway`` command; ``cli`` is argparse's sub-parsers object.

    Say what each runs with ``set_defaults(run=function)``: it is given the parsed arguments and returns the exit
    status. Nothing is served meanwhile: there was no ``on_startup``.
    """


@hookspec
async def on_shutdown() -> None:
    """The generation served its last exchange. Runs in reverse order."""
