"""An ``Explanation`` in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.explain import Explanation, Hop

_PER = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "max_concurrency": "requests at once",
}


def text(explanation: Explanation) -> str:
    """Lines without a last line break; the first one is the answer."""
    return "\n".join(_lines(explanation))


def _lines(told: Explanation) -> Iterator[str]:
    who = f"key '{told.key}'" if told.key is not None else "anybody"
    yield f"{who}, model '{told.model}': {_answer(told)}"
    yield ""
    yield f"access      {told.access.why}"
    for limit in told.limits:
        amount = f"{limit.value:,.12g}" if limit.value else "no limit of"
        yield f"limit       {amount} {_PER.get(limit.name, limit.name)}, {limit.where}"
    if not told.limits:
        yield "limit       none: 'rate_limit' is not in the chain"
    yield f"resolution  {told.resolution.rule}: {told.resolution.why}"
    yield from _order(told)
    for hop in told.targets:
        yield from _hop("target", hop, told)
    for fallback in told.fallbacks:
        if fallback.skipped:
            yield f"fallback    '{fallback.model}' is skipped: {fallback.skipped}"
        else:
            yield f"fallback    '{fallback.model}', when all targets before have failed"
        for hop in fallback.targets:
            yield from _hop("  target", hop, told)
    if told.targets:
        yield from _failures(told)
    yield f"cache       {'yes' if told.cache.may else 'no'}: {told.cache.why}"
    if told.running is not None:
        yield f"now         as the gateway at {told.running} tells"


def _answer(told: Explanation) -> str:
    if told.answer == "refused":
        return f"refused with {told.status}"
    if told.answer == "undecided":
        return "the configuration alone does not decide"
    return "forwarded to " + ", ".join(hop.target for hop in told.targets)


def _order(told: Explanation) -> Iterator[str]:
    if len(told.targets) == 1:
        yield "order       one target, nothing to choose"
    elif told.targets:
        for policy in told.policies:
            asked = policy.about if policy.asked else "not asked: its setting 'models' leaves this one out"
            yield f"order       {policy.plugin}: {asked}"
        yield f"order       {'where none of these decides: ' if told.policies else ''}drawn by weight"


def _hop(label: str, hop: Hop, told: Explanation) -> Iterator[str]:
    yield f"{label:<12}{hop.target} ({hop.type}), asked for '{hop.model}', weight {hop.weight}: {hop.share:.0%}"
    longest = f"{hop.queue_timeout:g} s at most" if hop.queue_timeout else "as long as it takes"
    waits = f"{hop.queue} may wait, {longest}"
    gates = ", ".join(f"{limit} for {name}" for name, limit in hop.at_once.items())
    yield f"              at once   {f'{gates}; {waits}' if gates else 'no limit'}"
    yield f"              price     {_price(hop.price)}"
    if hop.timeouts is not None:
        limits = ", ".join(f"{name} {_time(seconds)}" for name, seconds in hop.timeouts.items())
        yield f"              timeouts  {limits}"
        lost = "repeated once" if hop.retry_ambiguous else "never repeated (retry_ambiguous = false)"
        yield f"              lost      on a reused connection: {lost}"
    if told.running is not None:
        yield f"              now       {_now(hop.now)}"
        for name, gate in hop.gates.items():
            state = (
                f"{gate['running']} of {gate['limit']} running, {gate['waiting']} waiting, {gate['refused']} refused"
            )
            yield f"              now       at {name}: {state}"


def _price(price: Mapping[str, str] | None) -> str:
    if price is None:
        return "not known: its cost is not counted ([prices])"
    return f"${price['input']} for a million tokens in, ${price['output']} out ({price['source']})"


def _now(state: Mapping[str, Any] | None) -> str:
    if state is None:
        return "never called"
    wait = f", to be called in {state['wait']:.1f} s" if state["wait"] else ""
    return (
        f"{state['state']}{wait}; {state['in_flight']} in flight, {state['latency']:.3f} s to the first byte, "
        f"{state['failures']} of {state['calls']} calls failed lately, opened {state['opened']} times"
    )


def _failures(told: Explanation) -> Iterator[str]:
    retry, breaker = told.retry, told.breaker
    yield (
        f"retry       {retry['attempts']:g} calls for one request at most, fallbacks among them; "
        f"further calls up to {retry['budget']:.0%} of the first ones; waits before the same target is called again "
        f"grow from {retry['backoff']:g} s at most to {retry['max_backoff']:g} s"
    )
    signs = []
    if breaker["failures"]:
        signs.append(f"{breaker['failures']:g} failures in a row")
    if breaker["error_rate"]:
        rate = f"{breaker['error_rate']:.0%} of at least {breaker['min_calls']:g} calls"
        signs.append(f"{rate} within {_time(breaker['window'])} failed")
    rest = f"for {_time(breaker['open_for'])}, up to {_time(breaker['max_open'])}"
    yield f"breaker     {' or '.join(signs)}: left alone {rest}" if signs else "breaker     never opens"


def _time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds else "no limit"
