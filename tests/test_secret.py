"""Secrets: references in, nothing out but through ``reveal``."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from gateway import secret
from gateway.secret import InlineSecret, Secret, exposure, read_private, resolve

CANARY = "sk-canary-4711"


def write(path: Path, text: str = CANARY, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_r58_a_secret_prints_as_stars() -> None:
    for value in (Secret(CANARY), Secret(CANARY).prefixed("Bearer ")):
        for shown in (repr(value), str(value), f"{value}", f"{value:>9}", "%s %r" % (value, value), f"{[value]}"):  # noqa: UP031
            assert "***" in shown
            assert CANARY not in shown


@pytest.mark.parametrize(
    "leave",
    [pickle.dumps, copy.deepcopy, copy.copy, json.dumps, orjson.dumps],
    ids=["pickle", "deepcopy", "copy", "json", "orjson"],
)
def test_r58_a_secret_is_neither_pickled_nor_serialised(leave: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as caught:
        leave(Secret(CANARY))
    assert CANARY not in str(caught.value)


def test_a_secret_has_no_attributes_to_look_into() -> None:
    with pytest.raises(TypeError):
        vars(Secret(CANARY))


def test_references_to_the_environment() -> None:
    found = resolve("env:KEY", {"KEY": CANARY})
    assert found is not None
    assert found.reveal() == CANARY
    assert found.prefixed("Bearer ").reveal() == f"Bearer {CANARY}"


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_r61_a_missing_variable_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="environment variable KEY is not set"):
        resolve("env:KEY", environ)
    assert resolve("env:KEY?", environ) is None


def test_r61_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no file {tmp_path}/key"):
        resolve(f"file:{tmp_path}/key", {})
    assert resolve(f"file:{tmp_path}/key?", {}) is None


@pytest.mark.parametrize("text", [f"env:{CANARY}", f"file:{CANARY}", CANARY, "", f"{CANARY}?", f"http:{CANARY}"])
def test_r61_what_is_no_reference_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        resolve(text, {})
    assert CANARY not in str(caught.value)
    assert isinstance(caught.value, InlineSecret) == (not text.startswith(("env:", "file:")))


@pytest.mark.parametrize("owner", [os.geteuid(), 0, 54321], ids=["us", "root", "another"])
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o600, 0o604, 0o606, 0o620, 0o640, 0o644, 0o660, 0o666])
def test_r61_modes_and_owners(mode: int, owner: int) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 1, 0, 0, 0))
    allowed = mode in (0o400, 0o600) and owner != 54321
    assert (exposure(status) is None) == allowed


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o602])
def test_r61_a_file_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "key", mode=mode)
    with pytest.raises(
        ValueError, match=f"{path} can be read or written by others .mode {mode:04o}.: chmod 600"
    ) as caught:
        resolve(f"file:{path}", {})
    assert CANARY not in str(caught.value)


def test_white_space_around_the_content_is_not_part_of_it(tmp_path: Path) -> None:
    assert read_private(str(write(tmp_path / "key", f"\n {CANARY}\r\n"))) == CANARY


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_file_without_usable_content(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "key")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is "):
        resolve(f"file:{path}", {})


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(ValueError, match="is not a file"):
            resolve(f"file:{tmp_path}/{name}", {})
    with pytest.raises(ValueError, match="cannot be read: Not a directory"):
        resolve(f"file:{write(tmp_path / 'key')}/below", {})


def test_r61_rotation_is_seen_without_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(secret, "monotonic", lambda: now)
    path = write(tmp_path / "key", "old")
    found = resolve(f"file:{path}", {})
    assert found is not None
    header = found.prefixed("Bearer ")
    write(path, "new")
    now += secret.REFRESH - 1
    assert header.reveal() == "Bearer old"
    now += 1
    assert header.reveal() == "Bearer new"
    assert secret.REFRESH <= 60


def test_r61_a_rotation_that_goes_wrong_keeps_the_last_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(secret, "monotonic", lambda: now)
    path = write(tmp_path / "key", "old")
    found = resolve(f"file:{path}", {})
    assert found is not None
    spoilers: list[Callable[[], object]] = [path.unlink, lambda: write(path, ""), lambda: write(path, CANARY, 0o644)]
    for spoil in spoilers:
        spoil()
        now += secret.REFRESH
        caplog.clear()
        assert [found.reveal(), found.reveal()] == ["old", "old"]
        assert len(caplog.records) == 1
        assert str(path) in caplog.text
        assert CANARY not in caplog.text
    write(path, "new")
    now += secret.REFRESH
    assert found.reveal() == "new"
