"""The elements of model_list as targets of names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.importing import converted


def models(*entries: str, rest: str = "") -> tuple[dict[str, Any], list[str]]:
    """Each entry is ``NAME: parameters``. What is told of the file as a whole is left out."""
    lines = (f"- {{model_name: '{name}', litellm_params: {{{params}}}}}\n"
             for name, _, params in (entry.partition(": ") for entry in entries))  # fmt: skip
    document, told = converted(f"model_list:\n{''.join(lines)}{rest}")
    return document, [line for line in told if not line.startswith("x: ")]


def targets(*entries: str, rest: str = "") -> list[dict[str, Any]]:
    document, _ = models(*entries, rest=rest)
    found: list[dict[str, Any]] = document["models"]["m"]["targets"]
    return found


def test_a_name_given_twice_has_two_targets_and_equal_settings_one_provider() -> None:
    document, _ = models(
        "m: model: groq/a", "m: model: groq/b", "n: 'model': groq/a", "n: model: groq/a, api_key: other"
    )
    assert list(document["providers"]) == ["groq", "groq-2"]
    assert document["models"] == {
        "m": {"targets": [{"provider": "groq", "model": "a"}, {"provider": "groq", "model": "b"}]},
        "n": {"targets": [{"provider": "groq", "model": "a"}, {"provider": "groq-2", "model": "a"}]},
    }


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        ("weight: 0.9", "weight: 0.1", [9, 1]),
        ("weight: 2", "weight: 4", [1, 2]),
        ("weight: 3", "weight: 0", [1, 1]),
        ("weight: 30", "tpm: 4", [1, 1]),
        ("rpm: 100", "rpm: 300", [1, 3]),
        ("rpm: 100, tpm: 2", "tpm: 4", [1, 2]),
        ("rpm: 100", "tpm: 4", [1, 1]),
    ],
)
def test_weights_are_what_litellm_draws_by(first: str, second: str, weights: list[int]) -> None:
    found = targets(f"m: model: groq/a, {first}", f"m: model: groq/b, {second}")
    assert [target.get("weight", 1) for target in found] == weights


def test_limits_are_no_weights_where_a_strategy_decides() -> None:
    rest = "router_settings: {routing_strategy: least-busy}"
    assert "weight" not in str(targets("m: model: groq/a, rpm: 1", "m: model: groq/b, rpm: 3", rest=rest))


def test_a_repeated_target_is_one_with_both_weights() -> None:
    assert targets("m: model: groq/a", "m: model: groq/a") == [{"provider": "groq", "model": "a", "weight": 2}]


def test_targets_with_an_order_are_sorted_and_left_in_it() -> None:
    document, _ = models("m: model: groq/b, order: 2", "m: model: groq/a, order: 1", "n: model: groq/a")
    assert [target["model"] for target in document["models"]["m"]["targets"]] == ["a", "b"]
    assert document["plugins"]["chain"][-1] == "priority"
    assert document["plugins"]["priority"] == {"models": ["m"]}


def test_calls_at_once_are_limited_per_target_and_the_same_for_one() -> None:
    document, told = models("m: model: groq/a, max_parallel_requests: 5", "n: model: groq/a, max_parallel_requests: 7")
    assert [model["targets"][0]["max_concurrency"] for model in document["models"].values()] == [5, 5]
    assert "x:3: max_parallel_requests: this model of this provider has a limit of 5 already." in told


def test_all_models_of_a_provider_need_its_name_and_no_entry() -> None:
    document, told = models("m: model: groq/a, api_key: other", "groq/*: model: groq/*", "my-groq/*: model: groq/*",
                            "groq/*: model: groq/*, api_key: third")  # fmt: skip
    assert list(document["models"]) == ["m"]
    assert document["models"]["m"]["targets"][0]["provider"] == "groq-2"
    assert list(document["providers"]) == ["groq", "my-groq", "groq-2"]
    assert any(line.startswith("x:5: model: groq/* is left out") for line in told)


def test_globs_pass_the_clients_name_and_other_patterns_are_left_out() -> None:
    document, told = models("*: model: openai/*", "claude-*: model: anthropic/claude-*, max_parallel_requests: 2",
                            "a-*: model: openai/gpt-*", "b: model: '*'")  # fmt: skip
    assert document["models"] == {
        "*": {"targets": [{"provider": "openai"}]},
        "claude-*": {"targets": [{"provider": "anthropic"}]},
    }
    assert [line.partition(" is left out")[0] for line in told if "left out" in line] == [
        "x:4: model: a-*",
        "x:5: model: b",
    ]
    assert any(line.startswith("x:3: max_parallel_requests: a limit is for one model") for line in told)


def test_what_has_no_place_is_told_with_its_line() -> None:
    _, told = models("m: model: groq/a, rpm: 7, temperature: 1", "n: model: elevenlabs/x", "o: model: groq/a, foo: 1")
    assert [line.split(": ")[:2] for line in told] == [
        ["x:2", "rpm"], ["x:2", "temperature"], ["x:3", "model"], ["x:4", "foo"],
    ]  # fmt: skip


def test_a_name_that_is_a_pattern_here_is_told() -> None:
    assert (
        "x:2: fast [eu]: a name with ? or [ is a pattern here, and not listed for clients."
        in models("fast [eu]: model: groq/a")[1]
    )


def test_all_other_names_go_to_the_default_provider_beside_names_of_providers() -> None:
    document, told = models("*: model: openai/*", "groq/*: model: groq/*")
    assert (document["default_provider"], "models" in document) == ("openai", False)
    assert any(line.startswith("x:2: model: * became default_provider") for line in told)
    document, told = models("*: model: openai/*", "*: model: mistral/*", "groq/*: model: groq/*")
    assert "default_provider" not in document and len(document["models"]["*"]["targets"]) == 2
    assert any(line.startswith('x:2: model: [models."*"] has several targets') for line in told)
