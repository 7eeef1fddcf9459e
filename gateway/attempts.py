"""From targets to a reply: which target is called, and what happens when it fails.

Retries (the same target) and fallbacks (another) are one thing here: a further call, bounded by ``[retry] attempts``
and by the failing target's budget. Once a stream's first meaningful event is here nothing is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter

import orjson

from gateway.admission import Admission, Gate, enter_all, leave_all, try_enter_all
from gateway.commit import committed
from gateway.config import Config
from gateway.dialects.complete import is_whole_json
from gateway.dialects.registry import client
from gateway.errors import (
    GatewayError,
    Overloaded,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefused,
    forget_frames,
)
from gateway.exchange import Event, Exchange, Reply, Target
from gateway.plugins import Call, Plugins
from gateway.retry import Verdict, backoff, judge
from gateway.routing import Router
from gateway.targets import TargetState

log = logging.getLogger("hookgate")
_ERROR_SOON = 64  # bytes of a whole answer within which an error in a 200 shows
_NOTHING_MORE = Verdict(False, False)

Observer = Callable[[Exchange], Callable[[Event], None]]


class _Resting(Exception):
    """While a call waited for room its target was found down, or asked to be left alone; nothing was sent."""


class Running:
    """A call whose answer is still on its way to the client; told how that ended, once."""

    __slots__ = ("_gates", "_state", "_turn")

    def __init__(self, state: TargetState, turn: int, gates: Sequence[Gate]) -> None:
        self._state = state
        self._turn = turn
        self._gates = gates

    def end(self, outcome: str) -> None:
        now = monotonic()
        if outcome == "ok":
            self._state.succeeded(self._turn, now)
        elif outcome == "upstream_failed":
            self._state.failed(self._turn, now)
        else:
            self._state.abandoned(self._turn, now)
        leave_all(self._gates)


class Attempts:
    """Calls the targets of exchanges, on one generation of plugins and routes."""

    def __init__(self, config: Config, plugins: Plugins, router: Router, observer: Observer | None) -> None:
        self.admission: Admission = plugins.runtime.admission
        self._retry = config.retry
        self._targets = plugins.runtime.targets
        self._router = router
        self._observer = observer
        self._forwards = {name: calls["forward"] for name, calls in plugins.providers.items() if "forward" in calls}

    def serves(self, provider: str) -> bool:
        return provider in self._forwards

    async def forward(self, exchange: Exchange, named: Sequence[Target] | None = None) -> Reply:
        """Call targets until one replies. Raises the last call's error, or ``Overloaded`` where none may be called.

        ``named`` targets have no fallbacks: the client chose the provider, not the model alone.
        """
        if exchange.payload is None:
            await exchange.read()
        targets = named or self._router.ready(exchange) or await self._router.targets(exchange)
        target = targets[0]
        state = self._targets.of(target)
        if not state.admits(monotonic()) or len(targets) > 1:
            target = await self._first(exchange, targets, not named)
            state = self._targets.of(target)
        course: _Course | None = None
        while True:
            try:
                return await self._call(exchange, target, state, course is None)
            except _Resting:
                target = await self._first(exchange, targets, not named)
            except UpstreamError as error:
                error.target = error.target or target.name
                course = course or _Course(self, exchange, targets, None if not named else ())
                target = await course.after(error, target, state)
                forget_frames(error)
            state = self._targets.of(target)

    async def _first(self, exchange: Exchange, targets: Sequence[Target], may_fall_back: bool) -> Target:
        """The first target that may be called, one with room before one with a queue; fallbacks when none may."""
        if (found := self._free(exchange, targets)) is not None:
            return found
        fallbacks = await self._router.fallbacks(exchange) if may_fall_back else ()
        if (found := self._free(exchange, fallbacks)) is not None:
            return found
        now = monotonic()
        raise _resting(min(self._targets.of(target).wait(now) for target in (*targets, *fallbacks)))

    def _free(self, exchange: Exchange, targets: Sequence[Target], tried: Sequence[str] = ()) -> Target | None:
        now = monotonic()
        full: Target | None = None
        for target in targets:
            if target.name in tried or not self._targets.of(target).admits(now):
                continue
            gates = self.admission.of(target, exchange.model) if self.admission.limited else ()
            if all(gate.running < gate.limit for gate in gates):
                return target
            full = full or target
        return full

    async def _call(self, exchange: Exchange, target: Target, state: TargetState, first: bool) -> Reply:
        exchange.target = target
        gates = self.admission.of(target, exchange.model) if self.admission.limited else ()
        if gates and not try_enter_all(gates):
            await enter_all(gates, exchange)
            if not state.admits(monotonic()):
                leave_all(gates)
                raise _Resting
        exchange.tried.append(target.name)
        call = self._forwards[target.provider]
        began, clock = monotonic(), perf_counter()
        turn = state.begin(began, first)
        try:
            reply = await self._answer(exchange, target, call)
        except UpstreamError as error:
            self._failed(exchange, target, state, turn, began, error)
            leave_all(gates)
            raise
        except BaseException:
            state.abandoned(turn, monotonic())
            leave_all(gates)
            raise
        finally:
            call.stat.lap(clock)
        now = monotonic()
        if reply.stream is None:
            state.succeeded(turn, now, now - began)
            if gates:
                leave_all(gates)
        else:
            state.answered(turn, now, now - began)
            exchange.call = Running(state, turn, gates)
        return reply

    async def _answer(self, exchange: Exchange, target: Target, call: Call) -> Reply:
        """A reply that is good as far as can be told before its head is sent."""
        reply: Reply = await call.function(exchange, target)
        if reply.stream is not None:
            try:
                reply = await committed(exchange, reply, self._observer and self._observer(exchange))
            except BaseException:
                exchange.guard.disarm()  # the stream was left at a yield, under its limit
                if reply.close is not None:
                    reply.close()
                raise
            if exchange.payload.raw is not None:
                exchange.payload.fold()
            return reply
        if reply.body is not None and exchange.surface.repeatable and not reply.translated:
            if b'"error"' in reply.body[:_ERROR_SOON]:
                _demand_success(reply, target)
            _demand_json(reply, target)
            if reply.usage is None:
                reply.usage = client(exchange.surface.dialect).usage(reply.body)
        return reply

    def _failed(
        self, exchange: Exchange, target: Target, state: TargetState, turn: int, began: float, error: UpstreamError
    ) -> None:
        """Tell the target's state of a failed call."""
        now = monotonic()
        verdict = judge(error, True)
        opened = state.opened
        if verdict.failure:
            state.failed(turn, now, now - began)
        else:
            state.abandoned(turn, now)
        if verdict.cooldown:
            state.cool(now, verdict.cooldown)
        if state.opened != opened:
            log.warning("target %s: left alone for %.0f s, it fails: %s", target.name, state.wait(now), error.message)


def _resting(wait: float) -> Overloaded:
    return Overloaded("No target of this model can be called now.", retry_after=max(wait, 0.001))


class _Course:
    """What is left for an exchange whose first call failed."""

    __slots__ = ("_attempts", "_exchange", "_fallbacks", "_retries", "_targets")

    def __init__(
        self, attempts: Attempts, exchange: Exchange, targets: Sequence[Target], fallbacks: Sequence[Target] | None
    ) -> None:
        self._attempts = attempts
        self._exchange = exchange
        self._targets = targets
        self._fallbacks = fallbacks  # None: not looked for yet
        self._retries = 0

    async def after(self, error: UpstreamError, failed: Target, state: TargetState) -> Target:
        """The target to call next, when it may be. Raises ``error`` where the gateway is done trying."""
        self._forget(error)
        verdict = self._verdict(error)
        if len(self._exchange.tried) >= self._attempts._retry.attempts:
            verdict = _NOTHING_MORE
        target = await self._other() if verdict.fallback else None
        if target is not None:
            if state.withdraw(monotonic()):
                return target
        elif verdict.again and (wait := self._wait(state)) is not None and state.withdraw(monotonic()):
            self._retries += 1
            if await self._rested(state, wait):
                return failed
        raise self._final(error)

    def _forget(self, error: UpstreamError) -> None:
        """The call is over. Raises ``error`` where nobody is left who waits for the answer of another one."""
        exchange = self._exchange
        if exchange.drain is not None and exchange.drain.begun:
            exchange.sent = not isinstance(error, UpstreamRefused)
            raise error
        exchange.sent = False

    def _verdict(self, error: UpstreamError) -> Verdict:
        exchange = self._exchange
        payload = exchange.payload
        if payload.raw is None and payload.sent:
            return _NOTHING_MORE  # the streamed body has been sent once and is gone
        if exchange.method == "GET":
            return judge(error, True)
        # An answer was an answer; where there was none, the request may be in work there.
        answered = isinstance(error, UpstreamRefused) and exchange.surface.repeatable
        return judge(error, answered or exchange.repeatable())

    async def _other(self) -> Target | None:
        """A target not called yet: of the model itself, then of its fallbacks."""
        attempts, exchange = self._attempts, self._exchange
        if (target := attempts._free(exchange, self._targets, exchange.tried)) is not None:
            return target
        if self._fallbacks is None:
            self._fallbacks = await attempts._router.fallbacks(exchange)
        return attempts._free(exchange, self._fallbacks, exchange.tried)

    def _wait(self, state: TargetState) -> float | None:
        """Seconds until the same target may be called again; ``None`` where that is too long to let a client wait."""
        settings = self._attempts._retry
        wait = max(backoff(self._retries, settings), state.wait(monotonic()))
        return wait if wait <= settings.max_backoff else None

    async def _rested(self, state: TargetState, wait: float) -> bool:
        """Whether the same target may be called, after ``wait`` seconds or, if calls under way beside this one have
        been told of a later time, a while more."""
        until = monotonic() + self._attempts._retry.max_backoff
        while True:
            await asyncio.sleep(max(wait, 0.001))
            self._exchange.upstream_seconds += wait
            now = monotonic()
            if state.admits(now):
                return True
            wait = state.wait(now)
            if now + wait > until:
                return False

    def _final(self, error: UpstreamError) -> GatewayError:
        """``error`` as the client gets it: with the shortest wait where every target rests."""
        now = monotonic()
        waits = [self._attempts._targets.of(target).wait(now) for target in (*self._targets, *(self._fallbacks or ()))]
        soonest = min(waits)
        if soonest > 0:
            error.retry_after = soonest
        return error


def _demand_success(reply: Reply, target: Target) -> None:
    """Raise the error that a whole answer tells although its status is 200."""
    assert reply.body is not None
    try:
        told = orjson.loads(reply.body)
    except ValueError:
        return
    error = told.get("error") if isinstance(told, dict) else None
    if not error or told.get("choices") or told.get("data"):
        return
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    raise UpstreamRefused(status, reply.body, {"content-type": "application/json"}, target=target.name)


def _demand_json(reply: Reply, target: Target) -> None:
    """Raise when a whole answer breaks off inside its JSON: HTTP calls whole what ends with its connection (1.0), and
    what a proxy on the way was given to the end."""
    assert reply.body is not None
    if reply.status == 200 and not is_whole_json(reply.body):
        headers = reply.headers
        if headers.get("content-encoding", "identity") != "identity":
            return  # passed on as it is; what it holds cannot be seen
        if headers.get("content-type", "").lower().startswith("application/json"):
            raise UpstreamProtocolError("The provider's answer is not whole.", target=target.name)
