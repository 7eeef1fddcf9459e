from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway import config as configuration
from gateway.exchange import Principal
from gateway.explain_limits import limits_of
from gateway.limits import Limit
from gateway_plugins.middleware.rate_limit import Settings

TEXT = f"""\
[keys.alice]
sha256 = "{"0" * 64}"
team = "red"
requests_per_minute = 5
budget = {{ usd = 20, per = "month" }}
limits = [{{ tokens = 9, per = "day" }}, {{ requests = 1, per = "day", models = ["gpt-*"] }}]
[teams.red]
max_concurrency = 3
budget = {{ usd = 0.5, per = "total" }}
"""
SETTINGS = Settings(
    tokens_per_minute=7,
    limits=(Limit(usd=1, per="day"), Limit(output_tokens=4, per="hour")),
    total=(Limit(concurrency=50),),
)


def told(tmp_path: Path, model: str, settings: Any = SETTINGS) -> dict[str, tuple[float, str]]:
    path = tmp_path / "gateway.toml"
    path.write_text(TEXT)
    config, document = configuration.load(path, {})
    found = limits_of(document, config, settings, Principal("alice"), model)
    return {limit.name: (limit.value, limit.where.replace(f"{path}:", "")) for limit in found}


def test_all_that_limits_a_key_is_told_with_its_place(tmp_path: Path) -> None:
    assert told(tmp_path, "llama3") == {
        "requests_per_minute": (5, "keys.alice.requests_per_minute (4)"),
        "max_concurrency": (0, "default of plugins.rate_limit"),
        "usd per month": (20, "keys.alice.budget (5)"),
        "tokens per day": (9, "keys.alice.limits[0] (6)"),
        "output_tokens per hour": (4, "plugins.rate_limit.limits[0] (1)"),
        "the team's max_concurrency": (3, "teams.red.max_concurrency (8)"),
        "the team's usd": (0.5, "teams.red.budget (9)"),
        "all keys' concurrency": (50, "plugins.rate_limit.total[0] (1)"),
    }


def test_limits_of_other_models_are_left_out(tmp_path: Path) -> None:
    assert "requests per day" in told(tmp_path, "gpt-4o")


def test_without_the_plugin_nothing_is_limited(tmp_path: Path) -> None:
    assert told(tmp_path, "gpt-4o", None) == {}
