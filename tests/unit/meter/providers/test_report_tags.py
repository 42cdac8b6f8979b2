"""Tags: every hold has its own, and only the master key leads back from it."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.holds.hold import new_hold_id
from meter.identity.keys.key_text import Pepper
from meter.providers.report_tags import TAG_CHARS, ReportTags

MASTER = bytes(range(32))
TAGS = ReportTags.from_master_key(MASTER)


@given(st.uuids())
def test_a_tag_leads_back_to_its_hold(hold_id: UUID) -> None:
    tag = TAGS.tag(hold_id)
    assert len(tag) == TAG_CHARS
    assert set(tag) <= set("0123456789abcdef")
    assert tag != hold_id.hex
    assert ReportTags.from_master_key(MASTER).hold_id(tag) == hold_id


def test_another_master_key_leads_elsewhere() -> None:
    hold_id = new_hold_id(datetime.now(UTC))
    assert ReportTags.from_master_key(b"x" * 32).hold_id(TAGS.tag(hold_id)) != hold_id


def test_neighbouring_holds_have_tags_that_tell_nothing() -> None:
    first, second = TAGS.tag(UUID(int=1)), TAGS.tag(UUID(int=2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 12


@pytest.mark.parametrize(
    "tag", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n", "é" * 32, "٣" * 32]
)
def test_what_is_no_tag_leads_nowhere(tag: str) -> None:
    assert TAGS.hold_id(tag) is None


def test_the_key_is_of_its_own_and_not_shown() -> None:
    assert Pepper.from_master_key(MASTER).digest("x").hex()[:TAG_CHARS] != TAGS.tag(UUID(int=0))
    assert repr(TAGS) == "ReportTags('***')"
