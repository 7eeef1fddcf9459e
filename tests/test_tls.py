"""One context for the same files, another for files that were replaced, none for those nobody uses."""

from __future__ import annotations

import gc
import os
import ssl
import weakref
from pathlib import Path

import pytest

from gateway.tls import Contexts


@pytest.fixture
def authorities(tmp_path: Path) -> str:
    """An empty list of authorities; OpenSSL takes it as one."""
    path = tmp_path / "ca.pem"
    source = ssl.get_default_verify_paths().openssl_cafile
    found = next((Path(each) for each in (source, "/etc/ssl/certs/ca-certificates.crt") if Path(each).is_file()), None)
    if found is None:
        pytest.skip("no certificate authorities on this machine")
    path.write_bytes(found.read_bytes())
    return str(path)


def test_without_files_the_systems_authorities_count() -> None:
    assert Contexts().of(None, None, None) is True


def test_the_same_files_are_the_same_context(authorities: str) -> None:
    contexts = Contexts()
    context = contexts.of(authorities, None, None)
    assert contexts.of(authorities, None, None) is context


def test_a_replaced_file_is_another_context(authorities: str) -> None:
    contexts = Contexts()
    context = contexts.of(authorities, None, None)
    os.utime(authorities, ns=(1, 1))
    assert contexts.of(authorities, None, None) is not context


def test_a_context_nobody_uses_is_gone(authorities: str) -> None:
    contexts = Contexts()
    context = contexts.of(authorities, None, None)
    assert isinstance(context, ssl.SSLContext)
    gone = weakref.ref(context)
    del context
    gc.collect()
    assert gone() is None


def test_files_that_cannot_be_used_are_an_error(tmp_path: Path) -> None:
    contexts = Contexts()
    with pytest.raises(OSError, match="No such file"):
        contexts.of(str(tmp_path / "none.pem"), None, None)
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(ssl.SSLError):
        contexts.of(str(tmp_path / "junk.pem"), None, None)
