"""What rows add up to, the same in either database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.state.database import Database
from gateway.state.migrations import migrate
from gateway.state.report import Line, total, usage
from gateway.state.rows import INSERT, values
from tests.contract.database import opened
from tests.support.rows import make_row

DAY = 86_400_000


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    async with opened(url) as database:
        await migrate(database)
        yield database


async def write(database: Database, *rows: dict[str, Any]) -> None:
    await database.executemany(INSERT, [values(make_row(**row)) for row in rows])


async def test_everything_is_added_up(database: Database) -> None:
    nothing = {"input_tokens": None, "output_tokens": None, "cached_tokens": None, "reasoning_tokens": None}
    await write(
        database,
        {},
        {"cost_nano": None, "provenance": "estimated", "cached_tokens": None},
        {"cost_nano": 1, "provenance": "partial", "outcome": "client_gone", "status": 0, "cache": None},
        {"cache": "hit", "cost_nano": 0, "provenance": "estimated"},
        {"cache": "coalesced", "cost_nano": 0},
        {"outcome": "refused", "status": 401, "cost_nano": 0, "provenance": None, "cache": None, **nothing},
        {"outcome": "upstream_failed", "status": 502, "cost_nano": None, "provenance": None, **nothing},
        {"principal": "bob", "cost_nano": 4_000_000_000_000_000_000},
        {"principal": "bob", "cost_nano": 4_000_000_000_000_000_001},
    )
    assert await usage(database, ["key"]) == [
        Line(("bob",), 2, 0, 0, 20, 40, 8, 10, 0, 8_000_000_000_000_000_001, 0),
        Line(("alice",), 7, 2, 2, 30, 60, 8, 15, 2, 1_001, 2),
    ]


async def test_groups_are_those_asked_for_in_that_order(database: Database) -> None:
    await write(
        database,
        {"started": 5 * DAY, "cost_nano": 1},
        {"started": 5 * DAY - 1, "cost_nano": 2, "model": None, "team": None, "principal": None, "target": None},
        {"started": 6 * DAY - 1, "cost_nano": 4},
        {"started": 5 * DAY + 5, "cost_nano": 8, "model": "llama3", "target": "ollama/llama3:latest"},
    )

    async def groups(*by: str) -> list[tuple[tuple[str | None, ...], int]]:
        return [(line.group, line.cost_nano) for line in await usage(database, by)]

    assert await groups("day") == [(("1970-01-05",), 2), (("1970-01-06",), 13)]
    assert await groups("model", "day") == [
        ((None, "1970-01-05"), 2), (("llama3", "1970-01-06"), 8), (("gpt-4o", "1970-01-06"), 5),
    ]  # fmt: skip
    assert await groups("team") == [(("red",), 13), ((None,), 2)]
    assert await groups("key") == [(("alice",), 13), ((None,), 2)]
    assert await groups("target") == [(("ollama/llama3:latest",), 8), (("openai/gpt-4o",), 5), ((None,), 2)]


@pytest.mark.parametrize(
    ("limits", "cost"),
    [
        ({}, 1 + 2 + 4 + 8), ({"since": 2.0}, 2 + 4 + 8), ({"until": 3.0}, 1 + 2), ({"since": 2.0, "until": 3.0}, 2),
        ({"since": 0.0, "until": 0.0}, 0), ({"key": "bob"}, 4), ({"team": "blue"}, 4 + 8),
        ({"team": "blue", "key": "alice", "since": 1.5}, 8),
    ],
    ids=str,
)  # fmt: skip
async def test_only_what_is_asked_for_counts(database: Database, limits: dict[str, Any], cost: int) -> None:
    await write(
        database,
        {"started": 1_000, "cost_nano": 1},
        {"started": 2_000, "cost_nano": 2},
        {"started": 3_000, "cost_nano": 4, "principal": "bob", "team": "blue"},
        {"started": 4_000, "cost_nano": 8, "team": "blue"},
    )
    assert total(1, await usage(database, ["key"], **limits)).cost_nano == cost


def test_a_total_is_the_sum_and_of_nothing_zero() -> None:
    one, other = Line(("a", "b"), *range(1, 11)), Line((None, "c"), *range(10, 101, 10))
    assert total(2, [one, other]) == Line(("total", ""), *range(11, 111, 11))
    assert total(1, []) == Line(("total",), *[0] * 10)


@pytest.mark.parametrize(
    ("nano", "usd"),
    [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (9_223_372_036_854_775_807, "9223372036.854775807")],
)
def test_dollars_are_exact(nano: int, usd: str) -> None:
    assert Line((), 0, 0, 0, 0, 0, 0, 0, 0, nano, 0).usd == Decimal(usd)
