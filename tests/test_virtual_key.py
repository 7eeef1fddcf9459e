from __future__ import annotations

import hashlib

from gateway import virtual_key


def test_r11_keys_are_random() -> None:
    keys = {virtual_key.make() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith(virtual_key.PREFIX) and len(key) == 3 + 43 for key in keys)
    # 43 letters of base64 are 256 bits.
    assert len({key[3:] for key in keys}) == 100


def test_r12_the_digest_is_of_all_of_it() -> None:
    key = "hg-" + "c" * 600
    assert virtual_key.digest_of(key) == hashlib.sha256(key.encode()).digest()
    assert virtual_key.digest_of(key + "x") != virtual_key.digest_of(key)


def test_r14_whatever_is_sent_has_one() -> None:
    assert len({virtual_key.digest_of(text) for text in ("", "\0", "\udcff", "ü")}) == 4
