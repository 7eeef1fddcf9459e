"""Ids are unique and have the form of random UUIDs."""

from uuid import RFC_4122, UUID

from gateway.ids import RequestIds


def test_ids_are_unique_also_across_processes() -> None:
    first, second = RequestIds(), RequestIds()
    assert len({made.new() for made in (first, second) for _ in range(1000)}) == 2000


def test_ids_pass_for_random_uuids_with_servers_that_take_no_other() -> None:
    for _ in range(100):
        made = RequestIds().new()
        parsed = UUID(made)
        assert (str(parsed), parsed.version, parsed.variant) == (made, 4, RFC_4122)
