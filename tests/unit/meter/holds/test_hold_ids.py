"""Ids of holds: ordered by time, unguessable, UUIDs of version 7."""

from datetime import UTC, datetime, timedelta

from meter.holds.hold import new_hold_id

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
RANDOM_BITS = 74


def test_ids_are_ordered_by_time() -> None:
    moments = [AT + timedelta(milliseconds=step) for step in range(200)]
    ids = [new_hold_id(moment) for moment in moments]
    assert ids == sorted(ids)
    assert [one.hex for one in ids] == sorted(one.hex for one in ids)


def test_an_id_is_a_uuid_of_version_7_with_its_milliseconds() -> None:
    one = new_hold_id(AT)
    assert (one.version, one.variant) == (7, "specified in RFC 4122")
    assert one.int >> 80 == int(AT.timestamp()) * 1_000


def test_every_other_bit_is_random() -> None:
    """Each of 74 bits is 0 in some id of one moment and 1 in another one."""
    ids = [new_hold_id(AT).int for _ in range(200)]
    ever, always = 0, ids[0]
    for one in ids:
        ever, always = ever | one, always & one
    assert (ever & ~always).bit_count() == RANDOM_BITS
