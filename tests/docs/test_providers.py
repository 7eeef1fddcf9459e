"""The examples of ``docs/reference/providers.md`` load, and no provider lacks one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT

TEXT = (ROOT / "docs/reference/providers.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
# Not for configurations: it answers the gateway's own tests.
UNDOCUMENTED = {"probe"}
KEY = json.dumps(
    {"type": "service_account", "client_email": "a@b", "private_key": "x", "token_uri": "http://127.0.0.1"}
)


def name_of(example: str) -> str:
    found = re.search(r'type = "(\w+)"', example)
    assert found
    return found[1]


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{name_of(each)}-{at}" for at, each in enumerate(EXAMPLES)])
def test_an_example_is_taken(tmp_path: Path, example: str) -> None:
    if name_of(example) == "vertex" and "api_key" not in example:
        pytest.importorskip("google.auth", reason="google-auth is not installed")
    config = tmp_path / "gateway.toml"
    config.touch(0o600)
    config.write_text(example)
    secrets = {name: KEY if name.endswith("_JSON") else "x" for name in re.findall(r"env:(\w+)", example)}
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--config", str(config)],
        capture_output=True, text=True, cwd=ROOT, env={"PATH": os.environ["PATH"], **secrets},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_provider_has_an_example() -> None:
    shipped = {path.stem for path in (ROOT / "plugins/providers").glob("*.py")} - {"__init__"} - UNDOCUMENTED
    assert shipped == {name_of(each) for each in EXAMPLES}
    assert set(re.findall(r"^## (\w+)$", TEXT, re.M)) == shipped
