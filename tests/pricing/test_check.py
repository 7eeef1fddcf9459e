"""What ``gateway check`` says of ``[prices]`` beyond its types."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, Document, load

PRICED = {"input_cost_per_token": 1e-06}


def read(folder: Path, text: str, listed: Any = None) -> tuple[Config, Document]:
    if listed is not None:
        (folder / "list.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, {})


def said(lines: list[str], folder: Path) -> list[str]:
    return [line.replace(f"{folder}/", "") for line in lines]


def test_the_file_is_beside_the_configuration(tmp_path: Path) -> None:
    config, document = read(tmp_path, '[prices]\nfile = "list.json"', {"gpt-4o": {**PRICED, "mode": "chat"}})
    assert not document.problems
    assert config.prices.table == {"gpt-4o": PRICED}


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (None, "cannot be read: No such file or directory."), ("[]", "is not an object of models."),
        ({"m": {"input_cost_per_token": "1"}}, "model 'm': 'input_cost_per_token' is not a price."),
    ],
)  # fmt: skip
def test_a_file_that_is_missing_or_broken_is_a_problem_of_its_line(tmp_path: Path, listed: Any, problem: str) -> None:
    _, document = read(tmp_path, '[server]\n[prices]\nfile = "list.json"', listed)
    assert said(document.problems, tmp_path) == [f"gateway.toml:3: prices.file: list.json: {problem}"]


def test_a_long_list_of_mistakes_ends(tmp_path: Path) -> None:
    wrong = {f"m{number}": {"input_cost_per_token": None} for number in range(25)}
    _, document = read(tmp_path, '[prices]\nfile = "list.json"', wrong)
    assert len(document.problems) == 21
    assert document.problems[-1].endswith(": 5 more models are wrong.")


def test_a_type_nobody_has_is_warned_of(tmp_path: Path) -> None:
    text = '[prices]\nfree = [\n"echo",\n"olama",\n"mine"]\n[providers.own]\ntype = "mine"'
    _, document = read(tmp_path, text)
    assert not document.problems
    assert said(document.warnings, tmp_path) == [
        "gateway.toml:4: prices.free[1]: no provider is of type 'olama'. Did you mean 'ollama'?"
    ]


def test_who_asks_for_genai_prices_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)  # as if it were not installed
    _, document = read(tmp_path, "[prices]\ngenai = true")
    assert said(document.problems, tmp_path) == [
        "gateway.toml:2: prices.genai: needs genai-prices: pip install 'hookgate[cost]'."
    ]
    assert not read(tmp_path, "[prices]")[1].problems
