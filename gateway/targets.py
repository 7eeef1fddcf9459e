"""What is known of each target: calls under way, latency, circuit breaker, cooldown, retry budget.

Nothing here does I/O or looks at a clock: ``now`` is ``time.monotonic()`` of whoever asks. Every call is told from its
beginning to its end:

    turn = state.begin(now)
    state.answered(turn, now, seconds)      # a good answer begins; a stream's first event is there
    state.succeeded(turn, now)              # and then one of succeeded, failed, abandoned
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from math import exp
from typing import Any, Literal

from gateway.exchange import Target
from gateway.settings import Breaker, Retry

BreakerState = Literal["closed", "open", "half_open"]

DECAY = 30.0
"""Seconds in which what is known of a target's latency loses 63 % of its weight. Finagle's 10 s are for calls of
milliseconds; first tokens take seconds."""
RESERVE = 3.0
"""Further calls the failures of a target may cause before its first calls have paid for any."""
QUIET = 10.0
"""Seconds without a wish for a further call after which the reserve is whole again."""
MOST_SAVED = 100.0
"""Further calls a target can have saved up: what was in flight to it when it died may then be called elsewhere."""
UNNAMED = 1024
"""Targets kept that the configuration does not name (``provider/model`` in a request): clients choose those names."""
_SLOTS = 10  # of the window in which calls are counted
_PROBING = 1.0  # seconds to come back after, while one call finds out whether the target is well again


class TargetState:
    """One target.

    The breaker's life is a row of turns: closed, open, each probe. A call tells it something only within the turn it
    began in: not one left over from before it opened, nor the failure of a probe that was given up. The success of any
    probe closes it: a target may take longer to answer than one is waited for.
    """

    __slots__ = (
        "_breaker", "_calls", "_cools", "_failures", "_latency", "_open_for", "_probe_until", "_reopens", "_retry",
        "_seen", "_since", "_slot_ends", "_slots", "_streak", "_tokens", "_turn", "_wished", "in_flight", "opened",
    )  # fmt: skip

    def __init__(self, retry: Retry, breaker: Breaker) -> None:
        self._retry = retry
        self._breaker = breaker
        self.in_flight = 0
        """Calls under way, streams until their end."""
        self.opened = 0
        """How often the breaker has opened, for failed probes too."""
        self._latency = 0.0
        self._seen = 0.0
        self._cools = 0.0
        self._tokens = RESERVE if retry.budget else 0.0
        self._wished = 0.0
        self._turn = 0
        self._since = 0  # the turn in which the breaker opened
        self._open_for = 0.0
        self._reopens = 0.0  # when the open breaker lets a probe through; 0.0 while it is closed
        self._probe_until = 0.0
        self._streak = 0
        self._slots: list[tuple[int, int]] = []
        self._slot_ends = 0.0
        self._calls = self._failures = 0  # of the present slot; earlier ones stand in _slots

    def configure(self, retry: Retry, breaker: Breaker) -> None:
        """Other settings from now on; what was learnt stays. A breaker that is open stays so for as long as it was."""
        self._retry, self._breaker = retry, breaker
        if not retry.budget:
            self._tokens = 0.0

    # Whether to call.

    def admits(self, now: float) -> bool:
        """Whether it may be called: it is not cooling, and its breaker is closed or lets a probe through."""
        return now >= self._cools and (not self._reopens or (now >= self._reopens and now >= self._probe_until))

    def wait(self, now: float) -> float:
        """Seconds until it may be called; 0.0 when it may be now. While a probe is under way that is a guess."""
        wait = max(self._cools - now, self._reopens - now, 0.0)
        return max(wait, _PROBING) if self._reopens and now < self._probe_until else wait

    def state(self, now: float) -> BreakerState:
        """Of the breaker."""
        if not self._reopens:
            return "closed"
        return "open" if now < self._reopens else "half_open"

    def latency(self, now: float) -> float:
        """Seconds to the first byte, 0.0 if unknown. Worse ones count at once, better ones bit by bit, and what was
        long ago less and less (peak EWMA; Finagle's ``PeakEwma`` load metric)."""
        return self._latency * exp(min(self._seen - now, 0.0) / DECAY)

    # What a call does.

    def begin(self, now: float, first: bool = True) -> int:
        """A call begins, admitted or not. ``first``: it is no retry or fallback. Hand the turn to how it goes on."""
        self.in_flight += 1
        if first and self._tokens < MOST_SAVED:
            self._tokens += self._retry.budget
        if self._reopens:
            self._turn += 1
            # A probe that hangs is given up after a while; one whose client leaves, at once.
            self._probe_until = now + self._breaker.max_open
        return self._turn

    def answered(self, turn: int, now: float, seconds: float) -> None:
        """A good answer began ``seconds`` after its call. A probe closes the breaker with this; its stream may last."""
        if seconds >= self._latency:
            self._latency = seconds
        else:
            self._latency = seconds + (self._latency - seconds) * exp(min(self._seen - now, 0.0) / DECAY)
        self._seen = now
        if self._reopens and turn > self._since:
            self._close()

    def succeeded(self, turn: int, now: float, seconds: float | None = None) -> None:
        """A call ended well. ``seconds``: as for ``answered``, where that was not told."""
        self.in_flight -= 1
        if seconds is not None:
            self.answered(turn, now, seconds)
        if self._reopens:
            if turn > self._since:
                self._close()
            return
        if turn != self._turn:
            return
        self._streak = 0
        if now >= self._slot_ends:
            self._next_slot(now)
        self._calls += 1

    def failed(self, turn: int, now: float, seconds: float = 0.0) -> None:
        """The target failed a call. ``seconds``: how long that took; makes it look slower, never quicker."""
        self.in_flight -= 1
        if seconds > self.latency(now):
            self._latency, self._seen = seconds, now
        if turn != self._turn:
            return
        if self._reopens:
            self._open(now, min(self._open_for * 2, self._breaker.max_open))
            return
        self._streak += 1
        if now >= self._slot_ends:
            self._next_slot(now)
        self._calls += 1
        self._failures += 1
        if self._broken():
            self._open(now, self._breaker.open_for)

    def abandoned(self, turn: int, now: float) -> None:
        """A call ended that tells nothing of the target: its client left, was at fault, or is limited there (429)."""
        self.in_flight -= 1
        if turn == self._turn:
            self._probe_until = 0.0

    def cool(self, now: float, seconds: float) -> None:
        """No call for ``seconds``; a longer cooldown under way stays."""
        self._cools = max(self._cools, now + seconds)

    def withdraw(self, now: float) -> bool:
        """Whether the budget allows one further call, a retry or a fallback, for this target's failure; it is spent."""
        if self._retry.budget and self._tokens < RESERVE and now - self._wished >= QUIET:
            self._tokens = RESERVE
        self._wished = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def snapshot(self, now: float) -> dict[str, Any]:
        """For people and metrics. Times in seconds; calls and failures are those of the window."""
        if now >= self._slot_ends:
            self._next_slot(now)
        calls, failures = self._sums()
        return {
            "state": self.state(now),
            "in_flight": self.in_flight,
            "latency": self.latency(now),
            "wait": self.wait(now),
            "calls": calls,
            "failures": failures,
            "opened": self.opened,
            "budget": self._tokens,
        }

    # The breaker.

    def _broken(self) -> bool:
        settings = self._breaker
        if settings.failures and self._streak >= settings.failures:
            return True
        if not settings.error_rate:
            return False
        calls, failures = self._sums()
        return calls >= settings.min_calls and failures >= calls * settings.error_rate

    def _open(self, now: float, seconds: float) -> None:
        self._turn += 1
        self._since = self._turn
        self._open_for = seconds
        self._reopens = now + seconds
        self._probe_until = 0.0
        self.opened += 1

    def _close(self) -> None:
        self._turn += 1
        self._reopens = self._probe_until = 0.0
        self._streak = self._calls = self._failures = 0
        self._slots.clear()

    def _sums(self) -> tuple[int, int]:
        return (
            self._calls + sum(calls for calls, _ in self._slots),
            self._failures + sum(failures for _, failures in self._slots),
        )

    def _next_slot(self, now: float) -> None:
        """Put the present slot by, and as many empty ones as have passed since; forget those beyond the window."""
        width = self._breaker.window / _SLOTS
        passed = (now - self._slot_ends) // width
        if passed >= _SLOTS:
            self._slots.clear()
            self._slot_ends = now + width
        else:
            self._slots = [*self._slots, (self._calls, self._failures), *[(0, 0)] * int(passed)][1 - _SLOTS :]
            self._slot_ends += (passed + 1) * width
        self._calls = self._failures = 0


class Targets:
    """A state per target name. Outlives the generation, so that a reload makes no gateway forget who is down."""

    def __init__(self, retry: Retry = Retry(), breaker: Breaker = Breaker()) -> None:  # noqa: B008 - they are immutable
        self._retry = retry
        self._breaker = breaker
        self._states: dict[str, TargetState] = {}
        self._named: frozenset[str] = frozenset()

    def of(self, target: Target) -> TargetState:
        """The state of ``target``; a new one where nothing is known of it."""
        state = self._states.get(target.name)
        return state if state is not None else self._new(target.name)

    def _new(self, name: str) -> TargetState:
        if len(self._states) >= UNNAMED + len(self._named):
            unnamed = [other for other in self._states if other not in self._named]
            # Whoever calls it now holds its state; only what was learnt goes.
            oldest = next((other for other in unnamed if not self._states[other].in_flight), unnamed[0])
            del self._states[oldest]
        state = self._states[name] = TargetState(self._retry, self._breaker)
        return state

    def configure(self, retry: Retry, breaker: Breaker) -> None:
        """Settings of a reloaded configuration, for the known targets too."""
        self._retry, self._breaker = retry, breaker
        for state in self._states.values():
            state.configure(retry, breaker)

    def prune(self, providers: Container[str]) -> None:
        """Forget the targets of all providers but these."""
        self._states = {name: state for name, state in self._states.items() if name.split("/", 1)[0] in providers}

    def keep(self, names: Iterable[str]) -> None:
        """Targets that the configuration names: they are kept whatever else comes."""
        self._named = frozenset(names)

    def states(self) -> dict[str, TargetState]:
        """Target name → its state: a copy, which other threads may walk. They may read the states, but not
        ``snapshot`` them."""
        return self._states.copy()

    def snapshot(self, now: float) -> dict[str, dict[str, Any]]:
        """Target name → ``TargetState.snapshot``."""
        return {name: state.snapshot(now) for name, state in self._states.items()}
