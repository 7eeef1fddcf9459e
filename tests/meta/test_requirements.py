"""What is installed is pinned by hash, free of known holes, and little."""

from __future__ import annotations

import re
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.programs import ROOT

LOCKS = ("requirements.lock", "requirements-all.lock", "requirements-build.lock", "requirements-dev.lock")
# Oldest version without a known hole that reaches us, with the hole. Vendored: a scanner's answer changes by the day.
FLOORS = {
    "aiohttp": ("3.14.5", "CVE-2026-111750 (parser, fixed in 3.14.4), CVE-2026-34520, CVE-2026-47265, CVE-2026-54273"),
}
CORE_DISTRIBUTIONS = 30

OPERATORS = ("workers", "redis", "postgres", "cost", "jwt", "bedrock", "vertex", "import")
"""Extras of the image that has everything."""


def pins(name: str) -> dict[str, tuple[Version, int]]:
    """Distribution → version and how many hashes it has."""
    found: dict[str, tuple[Version, int]] = {}
    blocks = re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE))
    for block in filter(None, map(str.strip, blocks)):
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", block)
        assert match, f"{name}: not a pin: {block[:80]}"
        found[canonicalize_name(match[1])] = Version(match[2]), len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
    return found


def required(extra: str | None = None) -> list[Requirement]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = setup["options.extras_require"][extra] if extra else setup["options"]["install_requires"]
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    found = pins(name)
    assert found
    assert not [distribution for distribution, (_, hashes) in found.items() if not hashes]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=)", text, flags=re.MULTILINE)
    assert not re.search(r" @ |^-[a-z] ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", LOCKS)
def test_r02_no_lock_is_below_a_floor(name: str) -> None:
    found = pins(name)
    for distribution, (floor, holes) in FLOORS.items():
        if distribution in found:
            assert found[distribution][0] >= Version(floor), holes


def test_r02_nobody_may_install_below_a_floor() -> None:
    specifiers = {each.name: each.specifier for each in required()}
    for distribution, (floor, holes) in FLOORS.items():
        (specifier,) = specifiers[distribution]
        assert specifier.operator == ">="
        assert Version(specifier.version) >= Version(floor), holes


@pytest.mark.parametrize(
    ("lock", "extra"),
    [
        ("requirements.lock", None), ("requirements-dev.lock", "test"), ("requirements-dev.lock", "lint"),
        *(("requirements-all.lock", extra) for extra in (None, *OPERATORS)),
    ],
)  # fmt: skip
def test_the_lock_is_what_setup_asks_for(lock: str, extra: str | None) -> None:
    found = pins(lock)
    for each in required(extra):
        assert found[canonicalize_name(each.name)][0] in each.specifier, f"{each}: make lock"


@pytest.mark.parametrize("other", ["requirements-dev.lock", "requirements-all.lock"])
def test_the_tests_run_on_what_is_shipped(other: str) -> None:
    core, found = pins("requirements.lock"), pins(other)
    assert {name: pin[0] for name, pin in core.items()} == {name: found[name][0] for name in core}


def closure(name: str, found: set[str]) -> set[str]:
    """Distributions ``name`` brings with it in this environment, itself included."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *_wanted.get(name, ()))
        ):
            key = canonicalize_name(requirement.name)
            _wanted.setdefault(key, set()).update(requirement.extras)
            if key not in found:
                found.add(key)
                closure(key, found)
    return found


_wanted: dict[str, set[str]] = {}


def test_a_core_install_is_small() -> None:
    # The lock holds what any supported Python needs; what this one installs is a part of it.
    locked = set(pins("requirements.lock"))
    assert len(locked) + 1 < CORE_DISTRIBUTIONS
    installed: set[str] = set()
    for each in required():
        key = canonicalize_name(each.name)
        _wanted.setdefault(key, set()).update(each.extras)
        installed |= {key} | closure(key, installed)
    assert installed <= locked, "make lock"


def test_image_and_makefile_install_from_the_locks_only() -> None:
    for name in ("Makefile", "Containerfile"):
        for line in Path(ROOT, name).read_text().splitlines():
            if " install " in line and "pip-tools==" not in line and not line.lstrip().startswith("#"):
                assert "--require-hashes" in line or "--no-deps" in line, f"{name}: {line.strip()}"
