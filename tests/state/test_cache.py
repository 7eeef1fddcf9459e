"""Entries survive their bytes, damaged bytes are noticed, and the memory tier counts every byte it keeps."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Usage
from gateway.state.cache import OVERHEAD, Codec, Entry, MemoryTier

ENTRY = Entry(
    stored=1000.25,
    expires=4600.25,
    headers={"content-type": "application/json"},
    body=b'{"choices":[]}',
    streamed=False,
    usage=attrs.astuple(Usage(3, 4, cached_tokens=0)),
    dropped=("seed",),
)


def sized(size: int, expires: float = 100.0) -> Entry:
    return Entry(0.0, expires, {}, b"x" * (size - OVERHEAD), False)


entries = st.builds(
    Entry,
    stored=st.floats(0, 1e10),
    expires=st.floats(0, 1e10),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3),
    body=st.binary(max_size=500),
    streamed=st.booleans(),
    usage=st.none() | st.tuples(*[st.none() | st.integers(0, 2**53)] * 5, st.just("reported")),
    dropped=st.lists(st.text(max_size=10), max_size=3).map(tuple),
)


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert Codec.loads(Codec.dumps(entry)) == entry


def test_usage_comes_back_as_usage() -> None:
    usage = Codec.loads(Codec.dumps(ENTRY)).usage
    assert usage is not None
    assert Usage(*usage) == Usage(3, 4, cached_tokens=0)


def test_every_damaged_byte_is_noticed() -> None:
    raw = Codec.dumps(ENTRY)
    for position in [*range(8), *range(12, len(raw))]:  # 8 to 12 is the head's length: noticed by the JSON it cuts
        damaged = bytearray(raw)
        damaged[position] ^= 0x10
        with pytest.raises(ValueError, match="not a cache entry"):
            Codec.loads(bytes(damaged))


@pytest.mark.parametrize("position", range(8, 12))
def test_a_damaged_length_is_noticed(position: int) -> None:
    damaged = bytearray(Codec.dumps(ENTRY))
    damaged[position] ^= 0x10
    with pytest.raises(ValueError):
        Codec.loads(bytes(damaged))


@given(st.binary(max_size=100) | st.integers(0, 60).map(lambda n: Codec.dumps(ENTRY)[:n]))
def test_what_is_no_entry_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a cache entry"):
        Codec.loads(raw)


@pytest.mark.parametrize(("now", "fresh"), [(999.0, False), (1000.25, True), (4600.0, True), (4600.25, False)])
def test_an_entry_is_fresh_from_its_making_to_its_expiry(now: float, fresh: bool) -> None:
    assert ENTRY.is_fresh(now) is fresh


def test_memory_is_bounded_by_bytes_and_lets_the_least_recently_used_go() -> None:
    tier = MemoryTier(limit=10_000)
    for name in "abc":
        tier[name] = sized(3000)
    assert tier.lookup("a", 1.0) is not None  # used last, so it stays
    tier["d"] = sized(3000)
    assert [name for name in "abcd" if tier.lookup(name, 1.0)] == ["a", "c", "d"]
    assert tier.used == 9000


def test_memory_makes_room_for_a_large_entry_but_not_for_one_beyond_the_limit() -> None:
    tier = MemoryTier(limit=10_000)
    tier["a"] = sized(4000)
    tier["b"] = sized(4000)
    tier["huge"] = sized(10_001)
    assert list(tier.data) == ["a", "b"]
    tier["large"] = sized(10_000)
    assert list(tier.data) == ["large"]


def test_an_entry_too_large_does_not_leave_its_predecessor_behind() -> None:
    tier = MemoryTier(limit=10_000)
    tier["a"] = sized(4000)
    tier["a"] = sized(10_001)
    assert tier.lookup("a", 1.0) is None
    assert tier.used == 0


def test_an_expired_entry_is_not_found_and_frees_its_bytes() -> None:
    tier = MemoryTier(limit=10_000)
    tier["a"] = sized(4000, expires=50.0)
    assert tier.lookup("a", 49.9) is not None
    assert tier.lookup("a", 50.0) is None
    assert tier.used == 0


def test_no_memory_at_all_keeps_nothing() -> None:
    tier = MemoryTier(limit=0)
    tier["a"] = sized(OVERHEAD)
    assert len(tier) == 0


operations = st.lists(
    st.tuples(st.sampled_from(["write", "set", "delete", "pop", "clear", "lookup", "bulk"]), st.sampled_from("abcdef"),
              st.integers(OVERHEAD, 6000)),
    max_size=40,
)  # fmt: skip


@given(operations)
async def test_the_account_is_right_whatever_way_the_librarys_interface_is_used(
    steps: list[tuple[str, str, int]],
) -> None:
    tier = MemoryTier(limit=10_000)
    for operation, key, size in steps:
        ways: dict[str, Any] = {
            "write": lambda key=key, size=size: tier.write(key, sized(size)),
            "delete": lambda key=key: tier.delete(key),
            "pop": lambda key=key: tier.pop(key),
            "clear": tier.clear,
            "bulk": lambda key=key: tier.bulk_delete({key, "a"}),
        }
        if operation == "set":
            tier[key] = sized(size)
        elif operation == "lookup":
            tier.lookup(key, 1.0)
        else:
            await ways[operation]()
        assert tier.used == sum(entry.size for entry in tier.data.values()) <= 10_000


def test_the_overhead_counted_is_what_a_small_entry_costs() -> None:
    import tracemalloc

    tier = MemoryTier(limit=1 << 30)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            # Made at run time, as in a request: constants would be shared.
            tier[f"{number:064x}"] = Entry(
                1.5 * number, 2.5 * number, {"content-type": f"application/json{number}"}, b"", False,
                attrs.astuple(Usage(1000 + number, 2000 + number)),
            )  # fmt: skip
        cost = (tracemalloc.get_traced_memory()[0] - before) / 2000
    finally:
        tracemalloc.stop()
    assert OVERHEAD / 2 < cost < OVERHEAD


def test_a_smaller_tier_lets_go_of_the_least_used_at_once() -> None:
    tier = MemoryTier(limit=1 << 20)
    for key in ("a", "b", "c"):
        tier[key] = sized(2000)
    tier.resize(2 * tier.data["a"].size)
    assert list(tier.data) == ["b", "c"]
    tier.resize(1 << 20)
    tier["d"] = sized(2000)
    assert list(tier.data) == ["b", "c", "d"]
