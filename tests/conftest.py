"""Fixtures of this repository's tests. Those for plugin authors come from ``gateway.testing``."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

import gateway.testing
from tests.support.postgres import Postgres
from tests.support.programs import recorded_data
from tests.support.recordings import Recordings

# A busy machine is no defect of the code: neither slow examples nor slow generation fail a test.
hypothesis.settings.register_profile("hookgate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("hookgate")


def pytest_configure(config: pytest.Config) -> None:
    # An installed distribution brings the plugin by its entry point; a source tree has none.
    if not config.pluginmanager.has_plugin("hookgate"):
        config.pluginmanager.register(gateway.testing, "hookgate")


@pytest.fixture(scope="session")
def test_data() -> Recordings:
    """Recorded provider traffic; skips where there is none."""
    return Recordings(recorded_data())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of this run's own (each of several test processes has one); skips where there is none."""
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.empty()
