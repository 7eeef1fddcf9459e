"""``gateway usage``: what it prints, and what it says when there is nothing to print."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import time
from pathlib import Path

import pytest

from gateway import usage
from gateway.cli import main
from gateway.state.migrations import migrate
from gateway.state.report import BY
from gateway.state.rows import INSERT, Row, values
from tests.contract.database import opened
from tests.support.rows import make_row

CONFIG = '[plugins]\nchain = ["ledger"]\n[providers.echo]\ntype = "echo"\n'
ROWS = (
    make_row(cost_nano=1_500_000_000),
    make_row(principal="bob", team="blue", cost_nano=1, started=1_700_100_000_000),
    make_row(principal=None, team=None, model=None, target=None, outcome="refused", cost_nano=None, status=401),
)
COLUMNS = (
    "requests", "failed", "from_cache", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "estimated", "cost_usd", "unknown_cost",
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "gateway.toml"
    path.touch(mode=0o600)
    path.write_text(CONFIG)
    return path


def fill(url: str, *rows: Row) -> None:
    async def write() -> None:
        async with opened(url) as database:
            await migrate(database)
            await database.executemany(INSERT, [values(row) for row in rows])

    asyncio.run(write())


@pytest.fixture
def ledger(config: Path) -> Path:
    """The configuration of a ledger in which something stands."""
    fill(f"sqlite:///{config.parent}/gateway.db", *ROWS)
    return config


def told(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> str:
    assert main(["usage", "--config", str(config), *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> str:
    assert main(["usage", "--config", str(config), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_a_table_names_who_used_what_with_a_total(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, ledger).splitlines()
    assert lines[0].split() == ["key", *COLUMNS]
    assert [line.split() for line in lines[1:4]] == [
        ["alice", "1", "0", "0", "10", "20", "4", "5", "0", "1.5", "0"],
        ["bob", "1", "0", "0", "10", "20", "4", "5", "0", "0.000000001", "0"],
        ["-", "1", "1", "0", "10", "20", "4", "5", "0", "0", "1"],
    ]
    assert set(lines[4]) == {"-"}
    assert lines[5].split() == ["total", "3", "1", "0", "30", "60", "12", "15", "0", "1.500000001", "1"]
    assert len({len(line) for line in lines}) == 1


def test_csv_is_exact(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(told(capsys, ledger, "--by", "team,day", "--format", "csv"))))
    assert [(row["team"], row["day"], row["cost_usd"], row["unknown_cost"]) for row in rows] == [
        ("red", "2023-11-14", "1.5", "0"), ("", "2023-11-14", "0", "1"), ("blue", "2023-11-16", "0.000000001", "0"),
    ]  # fmt: skip
    assert tuple(rows[0]) == ("team", "day", *COLUMNS)


def test_json_is_exact(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(told(capsys, ledger, "--by", "target", "--format", "json"))
    assert [tuple(row) for row in rows] == [("target", *COLUMNS)] * 2
    assert [(row["target"], row["cost_usd"], row["requests"]) for row in rows] == [
        ("openai/gpt-4o", "1.500000001", 2), (None, "0", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "keys"),
    [
        (("--key", "bob"), ["bob"]), (("--team", "red"), ["alice"]), (("--since", "2023-11-16"), ["bob"]),
        (("--until", "2023-11-16"), ["alice", None]), (("--since", "2023-11-14T22:13:21Z"), ["bob"]),
        (("--since", "2023-11-15T03:13:20+05:00", "--until", "2023-11-15"), ["alice", None]), (("--since", "7d"), []),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_added_up_can_be_limited(
    ledger: Path, capsys: pytest.CaptureFixture[str], limits: tuple[str, ...], keys: list[str | None]
) -> None:
    assert [row["key"] for row in json.loads(told(capsys, ledger, "--format", "json", *limits))] == keys


def test_a_time_may_be_so_long_ago(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(f"sqlite:///{ledger.parent}/gateway.db", make_row(principal="dora", started=int(time.time() - 7200) * 1000))
    for since, count in (("1h", 0), ("3h", 1), ("1d", 1)):
        assert len(json.loads(told(capsys, ledger, "--format", "json", "--since", since))) == count


@pytest.mark.parametrize(
    "wrong", [("--since", "yesterday"), ("--by", "key,colour"), ("--by", ""), ("--format", "xml")], ids=str
)
def test_what_cannot_be_understood_is_told(
    ledger: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["usage", "--config", str(ledger), *wrong])
    assert ended.value.code == 2
    assert f"argument {wrong[0]}: " in capsys.readouterr().err


def test_the_names_are_the_report_s() -> None:
    assert usage._BY == tuple(BY)


def test_a_ledger_that_is_written_to_can_be_read(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = sqlite3.connect(ledger.parent / "gateway.db", isolation_level=None)
    gateway.execute("BEGIN IMMEDIATE")
    gateway.execute("DELETE FROM hookgate_ledger")
    assert len(json.loads(told(capsys, ledger, "--format", "json"))) == 3
    gateway.close()


def test_it_reads_postgresql(config: Path, capsys: pytest.CaptureFixture[str], postgres_url: str) -> None:
    fill(postgres_url, *ROWS)
    url = postgres_url.replace("hookgate@", "") + "&user=hookgate"  # with an @ it would have to be a reference
    config.write_text(f'{CONFIG}[state]\nledger = "{url}"\n')
    assert [row["key"] for row in json.loads(told(capsys, config, "--format", "json"))] == ["alice", "bob", None]


def test_where_nothing_was_written_nothing_is_made(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, config) == f"sqlite:///{config.parent}/gateway.db: No such file or directory\n"
    assert not (config.parent / "gateway.db").exists()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TABLE hookgate_schema_version", "no gateway of this release has written there yet"),
        ("UPDATE hookgate_schema_version SET version = 99", "Install a newer one"),
    ],
    ids=["older", "newer"],
)
def test_tables_of_another_release_are_left_alone(
    ledger: Path, capsys: pytest.CaptureFixture[str], statement: str, says: str
) -> None:
    with sqlite3.connect(ledger.parent / "gateway.db") as database:
        database.execute(statement)
    database.close()
    assert says in refused(capsys, ledger)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CONFIG.replace('"ledger"', ""), ":2: 'ledger' is not in the chain"),
        (
            f'{CONFIG}[state]\nledger = "env:NOWHERE"\n',
            ":6: state.ledger: the environment variable NOWHERE is not set.",
        ),
        (f'{CONFIG}[state]\nledger = "mysql://db/x"\n', "expected sqlite:///FILE or postgresql://HOST/DATABASE"),
        ("[state", "gateway.toml:1: "),
    ],
    ids=["none", "no url", "another kind", "no TOML"],
)
def test_a_configuration_without_a_ledger_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    config.write_text(text)
    assert says in refused(capsys, config)


def test_what_is_wrong_elsewhere_does_not_matter(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.write_text(
        f'{CONFIG}[providers.openai]\ntype = "openai_compat"\napi_key = "env:NOWHERE"\n[server]\nport = -1\n'
    )
    assert told(capsys, ledger)
