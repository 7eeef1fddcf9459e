"""What the image promises, read from its recipe; no engine is needed."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch

import pytest

from tests.support.programs import ROOT

TEXT = (ROOT / "Containerfile").read_text()
LINES = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
INSTRUCTIONS = [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in LINES if line)]


def last(name: str) -> str:
    return [rest for word, rest in INSTRUCTIONS if word == name][-1]


def final_stage() -> list[tuple[str, str]]:
    start = max(index for index, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM")
    return INSTRUCTIONS[start:]


def copied() -> list[str]:
    """What is taken from the checkout."""
    sources = []
    for word, rest in INSTRUCTIONS:
        words = [each for each in rest.split() if not each.startswith("--")]
        if word == "COPY" and "--from=" not in rest:
            sources += words[:-1]
    return sources


def test_r66_the_last_user_is_a_number_that_is_not_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    words = [word for word, _ in final_stage()]
    assert "RUN" not in words[words.index("USER") :]


def test_the_health_check_asks_for_liveness() -> None:
    check = last("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/health/live" in command[2]


def test_the_gateway_itself_gets_the_stop_signal() -> None:
    assert last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(last("ENTRYPOINT")) == ["gateway"]
    assert json.loads(last("CMD"))[0] == "serve"


def test_nothing_is_fetched_but_hashed_wheels() -> None:
    assert not [rest for word, rest in INSTRUCTIONS if word == "ADD"]
    assert "curl" not in TEXT
    assert "apt" not in TEXT
    for word, rest in INSTRUCTIONS:
        for command in rest.split("&&") if word == "RUN" else ():
            if "pip install" in command:
                assert "--require-hashes" in command or "--no-index" in command, command


def test_no_secret_is_built_in() -> None:
    for word, rest in INSTRUCTIONS:
        assert word != "ARG" or rest == "LOCK=requirements.lock"
        assert not (word == "ENV" and re.search(r"key|token|secret|password", rest, re.IGNORECASE))


def test_both_stages_are_the_same_system() -> None:
    images = [rest.split()[0] for word, rest in INSTRUCTIONS if word == "FROM"]
    assert len(images) == 2
    assert len(set(images)) == 1


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_reaches_the_engine(source: str) -> None:
    assert (ROOT / source).exists()
    assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", [".env", ".git", "gateway.db", "keys.txt", ".venv"])
def test_what_lies_in_a_checkout_does_not(name: str) -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns
    assert not any(fnmatch(name, pattern[1:]) for pattern in patterns if pattern.startswith("!"))


def test_the_exposed_port_is_the_configured_one() -> None:
    server = tomllib.loads((ROOT / "gateway.toml").read_text()).get("server", {})
    assert int(last("EXPOSE")) == server.get("port", 8080)
