"""Limits of deployments and budgets, as those of names and of all keys."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.importing import converted


def limits(*entries: str, rest: str = "") -> tuple[dict[str, Any], list[str]]:
    """Each entry is ``NAME: parameters``. What is told of the file as a whole is left out."""
    lines = (f"- {{model_name: '{name}', litellm_params: {{{params}}}}}\n"
             for name, _, params in (entry.partition(": ") for entry in entries))  # fmt: skip
    document, told = converted(f"model_list:\n{''.join(lines)}{rest}")
    return document["plugins"]["rate_limit"], [line for line in told if not line.startswith("x: ")]


def total(*entries: str, rest: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = limits(*entries, rest=rest)[0].get("total", [])
    return found


def test_deployments_of_a_name_are_added_up() -> None:
    given = ("m: model: groq/a, rpm: 100, tpm: 5, itpm: 3", "m: model: groq/b, rpm: 50, itpm: 4", "n: model: groq/c")
    found, told = limits(*given)
    assert found == {
        "requests_per_minute": 0,
        "total": [
            {"requests": 150, "per": "minute", "models": ["m"]},
            {"input_tokens": 7, "per": "minute", "models": ["m"]},
        ],
    }
    assert "x:2: tpm: not carried over: another deployment of m has none, and so the name has none." in told
    assert any("its deployments added up" in line and line.endswith("(also line 3)") for line in told)


def test_an_alias_counts_with_its_model() -> None:
    rest = "router_settings: {model_group_alias: {x: m}}"
    assert total("m: model: groq/a, rpm: 1", rest=rest)[0]["models"] == ["m", "x"]


def test_a_name_that_takes_in_others_has_no_limit() -> None:
    _, told = limits("*: model: openai/*, rpm: 1", "m: model: groq/a")
    assert "x:2: rpm: not carried over: * takes in other names here, which would count, too." in told
    assert total("groq/*: model: groq/*, rpm: 1", "m: model: groq/a") == [
        {"requests": 1, "per": "minute", "models": ["groq/*"]}
    ]


def test_a_name_is_no_pattern() -> None:
    assert total("a [b]?: model: groq/a, tpm: 1")[0]["models"] == ["a [[]b][?]"]


@pytest.mark.parametrize("place", ["rpm: 7", "model_info: {rpm: 7}"])
def test_a_limit_may_stand_beside_the_parameters(place: str) -> None:
    document, _ = converted(f"model_list:\n- {{model_name: m, litellm_params: {{model: groq/a}}, {place}}}\n")
    assert document["plugins"]["rate_limit"]["total"] == [{"requests": 7, "per": "minute", "models": ["m"]}]


@pytest.mark.parametrize(
    ("duration", "per"),
    [
        ("", "total"), ("1d", "day"), ("24h", "day"), ("86400s", "day"), ("7d", "week"), ("1w", "week"),
        ("30d", "month"), ("1mo", "month"), ("31d", "month"),
        ("12h", None), ("14d", None), ("2mo", None), ("often", None), ("30", None),
    ],
)  # fmt: skip
def test_a_budget_has_the_period_that_is_nearest(duration: str, per: str | None) -> None:
    given = f", budget_duration: {duration}" if duration else ""
    found, told = limits(rest=f"litellm_settings: {{max_budget: 2.5{given}}}")
    assert found.get("total") == (None if per is None else [{"usd": 2.5, "per": per}])
    assert any("max_budget: not carried over" in line for line in told) is (per is None)
    assert any(f"budget_duration: {duration} became a " in line for line in told) is (per not in (None, "total"))


def test_no_budget_is_none() -> None:
    assert limits(rest="litellm_settings: {max_budget: 0, budget_duration: 1d}")[0] == {"requests_per_minute": 0}


def test_budgets_of_deployments_are_those_of_their_name() -> None:
    first, second = (
        "m: model: groq/a, max_budget: 1, budget_duration: ",
        "m: model: groq/b, max_budget: 2, budget_duration: ",
    )
    assert total(f"{first}1d", f"{second}24h") == [{"usd": 3, "per": "day", "models": ["m"]}]
    found, told = limits(f"{first}1d", f"{second}7d")
    assert "total" not in found
    assert any(line.startswith("x:2: max_budget: not carried over: a budget is for") for line in told)


def test_what_new_keys_get_is_for_keys_that_say_nothing() -> None:
    given = "{rpm_limit: 10, tpm_limit: 0, max_parallel_requests: 3, max_budget: 1.5, budget_duration: 7d, models: [m]}"
    found, told = limits(rest=f"litellm_settings: {{default_key_generate_params: {given}}}")
    assert found == {"requests_per_minute": 10, "max_concurrency": 3, "limits": [{"usd": 1.5, "per": "week"}]}
    assert any(": models: not carried over" in line for line in told)


def test_calls_at_once_of_the_whole_proxy() -> None:
    assert total(rest="general_settings: {global_max_parallel_requests: 9}") == [{"concurrency": 9}]
