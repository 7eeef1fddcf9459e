"""Hookgate: the LLM gateway. What plugin authors import."""

from gateway.config import Duration, Secret, Size, Timeouts
from gateway.exchange import Event, Exchange, Principal, Reply, Surface, Target, Usage
from gateway.hookspecs import hookimpl
from gateway.runtime import Runtime

__all__ = [
    "Duration",
    "Event",
    "Exchange",
    "Principal",
    "Reply",
    "Runtime",
    "Secret",
    "Size",
    "Surface",
    "Target",
    "Timeouts",
    "Usage",
    "hookimpl",
]
