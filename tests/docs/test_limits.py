"""The how-to's configuration is one, and what it says of defaults is so."""

from __future__ import annotations

import re
from pathlib import Path

from gateway import config, plugins
from gateway.state.processes import DEAD_AFTER
from gateway.upstream import Upstream
from tests.support.programs import ROOT

TEXT = (ROOT / "docs/how-to/limits.md").read_text()
ENVIRONMENT = {
    "REDIS_URL": "redis://localhost:6379/0", "LEDGER_URL": "postgresql://localhost/hookgate", "OPENAI_API_KEY": "k",
}  # fmt: skip


async def test_the_configuration_has_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("".join(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)))
    path.chmod(0o600)
    settings, document = config.load(path, ENVIRONMENT)
    upstream = Upstream(settings.pool)
    try:
        plugins.load(settings, document, plugins.Runtime(settings, upstream, folder=tmp_path))
        assert document.problems == []
        assert document.warnings == []
    finally:
        await upstream.close()


def test_what_it_says_of_times_is_so() -> None:
    assert "`redis_timeout` (40 ms)" in TEXT and config.State().redis_timeout == 0.04
    assert "after ten seconds" in TEXT and DEAD_AFTER == 10


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (ROOT / "docs/how-to" / link).is_file(), link
