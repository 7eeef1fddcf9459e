"""LiteLLM's ``model_list`` as ``[providers]`` and ``[models]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import attrs

from gateway.importing import vendors
from gateway.importing.fields import Fields

_DEFAULTS = "requests get no default fields here; clients send them."
_OTHERS = "only tokens and requests have prices here, not seconds, characters or pictures."
PRICE_REASONS = dict.fromkeys((
    "input_cost_per_second", "output_cost_per_second", "input_cost_per_character", "output_cost_per_character",
    "input_cost_per_image", "output_cost_per_image", "input_cost_per_pixel", "output_cost_per_pixel",
    "input_cost_per_query",
), _OTHERS) | {"tiered_pricing": "write the sizes as tiers in [prices.models]."}  # fmt: skip
REASONS = PRICE_REASONS | {
    "max_parallel_requests": "a target has a limit; max_concurrency in the provider's table limits all its models.",
    "max_retries": "[retry] attempts counts for all models.", "num_retries": "[retry] attempts counts for all models.",
    "cooldown_time": "[breaker] counts for all models.", "allowed_fails": "[breaker] counts for all models.",
    "drop_params": "strict counts for all models.", "additional_drop_params": "no fields are dropped on request.",
    "temperature": _DEFAULTS, "max_tokens": _DEFAULTS, "top_p": _DEFAULTS, "seed": _DEFAULTS, "stop": _DEFAULTS,
    "extra_body": _DEFAULTS, "reasoning_effort": _DEFAULTS, "thinking": _DEFAULTS, "tools": _DEFAULTS,
    "tags": "requests are not routed by tags.", "model_info": "it describes the model to LiteLLM only.",
    "aws_profile_name": "set AWS_PROFILE for the gateway's process.",
    "aws_role_name": "botocore's default chain looks for roles: a profile or a web identity.",
    "mock_response": 'type = "echo" answers without a provider.',
    "ssl_verify": "TLS is always verified; ca_file in the provider's table names your own authority.",
}  # fmt: skip
_GLOB = re.compile(r"[*?\[]")
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@attrs.frozen
class Deployment:
    """One element of ``model_list``."""

    name: str
    """What clients send."""
    fields: Fields
    """``litellm_params``."""
    info: Fields
    """``model_info``."""
    vendor: str
    model: str | None
    """What the provider is sent; ``None``: what clients send."""
    table: dict[str, Any]
    alone: bool = False
    """``NAME/*`` for all models of one provider: needs that provider's name and no entry."""

    @property
    def asked(self) -> str:
        """The model the provider is asked for, or the glob of all that it may be."""
        return "*" if self.alone else self.model or self.name


@attrs.frozen
class Placed:
    """A deployment that became part of the configuration."""

    deployment: Deployment
    provider: str
    """Its provider's name."""


@attrs.frozen
class Built:
    tables: dict[str, Any]
    """``default_provider``, ``[providers]`` and ``[models]``."""
    ordered: list[str]
    """The models whose targets have an order."""
    placed: list[Placed]


class Providers:
    """The tables of ``[providers]``; deployments with equal settings share one."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}

    def name(self, table: dict[str, Any], wanted: str) -> str:
        """The provider with this table; a new one is called ``wanted``, or ``wanted-2``, …"""
        for known, there in self.tables.items():
            if there == table and re.fullmatch(rf"{re.escape(wanted)}(-\d+)?", known):
                return known
        number = 1
        while (name := wanted if number == 1 else f"{wanted}-{number}") in self.tables:
            number += 1
        self.tables[name] = table
        return name

    def claim(self, table: dict[str, Any], name: str) -> bool:
        """Whether the provider of just this name has this table now."""
        return self.tables.setdefault(name, table) == table


def deployment(name: str, fields: Fields, info: Fields) -> Deployment | None:
    """``None`` if it cannot be carried over, which is noted."""
    vendor, model, region = vendors.split(fields)
    if not vendor:
        fields.note("model", f"{name} is left out: no provider here is known to be this model's; a server that speaks "
                    'OpenAI\'s API can be written as type = "openai_compat" with its base_url.')  # fmt: skip
        return None
    table = vendors.table(vendor, model, region, fields)
    prefix = name.removesuffix("/*")
    if model == "*" and prefix != name and _PROVIDER.fullmatch(prefix):
        return Deployment(name, fields, info, vendor, None, table, alone=True)
    if not _GLOB.search(model):
        if re.search(r"[?\[]", name):
            fields.note(None, f"{name}: a name with ? or [ is a pattern here, and not listed for clients.")
        return Deployment(name, fields, info, vendor, model, table)
    if model == name:
        return Deployment(name, fields, info, vendor, None, table)
    fields.note("model", f"{name} is left out: what a * stands for is not put into another name here.")
    return None


def build(deployments: Sequence[Deployment], strategy: str) -> Built:
    providers = Providers()
    placed: list[Placed] = []
    for each in deployments:
        name = each.name.removesuffix("/*")
        if each.alone and providers.claim(each.table, name):
            placed.append(Placed(each, name))
        elif each.alone:
            each.fields.note("model", f"{each.name} is left out: its provider's name is taken by another deployment.")
    groups: dict[str, list[Deployment]] = {}
    for each in deployments:
        if not each.alone:
            groups.setdefault(each.name, []).append(each)
    others = [each for group in groups.values() for each in group]
    default = _default(deployments, groups, providers)
    models: dict[str, Any] = {}
    ordered: list[str] = []
    limits: dict[str, int] = {}
    for name, group in groups.items():
        orders = [each.fields.number("order") for each in group]
        if any(order is not None for order in orders):
            ordered.append(name)
            group = [group[at] for at in sorted(range(len(group)), key=lambda at: orders[at] or 0)]
        weights = _weights(group, strategy)
        targets = [_target(each, weight, providers, limits) for each, weight in zip(group, weights, strict=True)]
        models[name] = {"targets": _merged(targets)}
    placed += [Placed(each, providers.name(each.table, each.vendor)) for each in others]
    return Built(default | {"providers": providers.tables, "models": models}, ordered, placed)


def _default(
    deployments: Sequence[Deployment], groups: dict[str, list[Deployment]], providers: Providers
) -> dict[str, Any]:
    """``*`` beside ``NAME/*``: in ``[models]`` it would come before what is looked up by its provider's name."""
    if "*" not in groups or not any(each.alone for each in deployments):
        return {}
    first, *others = groups["*"]
    if others:
        first.fields.note("model", '[models."*"] has several targets and takes all names, those that start with a '
                          "provider's name included.")  # fmt: skip
        return {}
    del groups["*"]
    first.fields.note("model", "* became default_provider, which is asked for names that nobody else lists and has no "
                      "fallbacks.")  # fmt: skip
    return {"default_provider": providers.name(first.table, first.vendor)}


def _target(each: Deployment, weight: int, providers: Providers, limits: dict[str, int]) -> dict[str, Any]:
    target: dict[str, Any] = {"provider": providers.name(each.table, each.vendor)}
    if each.model is not None:
        target["model"] = each.model
    if weight > 1:
        target["weight"] = weight
    limit = each.fields.whole("max_parallel_requests")
    if not limit:
        return target
    if each.model is None:
        each.fields.note("max_parallel_requests", "a limit is for one model, but this entry takes any; "
                         "max_concurrency in the provider's table limits all of them.")  # fmt: skip
        return target
    first = limits.setdefault(f"{target['provider']}/{each.model}", limit)
    if first != limit:
        each.fields.note("max_parallel_requests", f"this model of this provider has a limit of {first} already.")
    return target | {"max_concurrency": first}


def _merged(targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without repetitions; their weights are added."""
    found: dict[tuple[Any, Any], dict[str, Any]] = {}
    for target in targets:
        first = found.setdefault((target["provider"], target.get("model")), target)
        if first is not target:
            first["weight"] = first.get("weight", 1) + target.get("weight", 1)
    return list(found.values())


def _weights(group: list[Deployment], strategy: str) -> list[int]:
    """Whole numbers from 1 up. LiteLLM draws by ``weight``, or else by ``rpm`` or ``tpm``."""
    for key in ("weight", "rpm", "tpm"):
        if key != "weight" and (strategy != "simple-shuffle" or len(group) < 2):
            break
        # Looked at here, and dealt with as limits elsewhere.
        given = [each.fields.number(key) if key == "weight" else each.fields.peek(key) for each in group]
        if any(given) and (key == "weight" or all(given)):
            for each, value in zip(group, given, strict=True):
                if not value:
                    each.fields.note(key, f"{each.name}: none beside others that have one; it gets the least.")
                elif key != "weight":
                    each.fields.note(key, "became the target's weight, as LiteLLM draws by it.")
            return _whole([Fraction(value or 0).limit_denominator(1000) for value in given])
    return [1] * len(group)


def _whole(shares: list[Fraction]) -> list[int]:
    common = lcm(*(share.denominator for share in shares))
    numbers = [int(share * common) for share in shares]
    divisor = gcd(*numbers) or 1
    return [max(1, number // divisor) for number in numbers]
