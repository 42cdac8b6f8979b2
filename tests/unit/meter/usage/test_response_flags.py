"""The table of Envoy's response flags."""

from meter.protos import access_log_pb2 as pb
from meter.usage.response_flags import NEVER_REACHED, SHORT_NAMES, has_never_reached, join_flags


def test_each_flag_is_a_field_of_envoys_message() -> None:
    fields = {field.name for field in pb.ResponseFlags.DESCRIPTOR.fields}
    assert set(SHORT_NAMES) <= fields
    # The only flag without a place in the table: a reply from a cache.
    assert fields - set(SHORT_NAMES) == {"response_from_cache_filter"}
    assert len(set(SHORT_NAMES.values())) == len(SHORT_NAMES)
    assert set(SHORT_NAMES.values()) >= NEVER_REACHED


def test_flags_are_joined_in_one_order() -> None:
    assert join_flags(["DC", "UF", "new", "UH"]) == join_flags(["UH", "DC", "UF"]) == "UH,UF,DC"
    assert join_flags([]) == ""


def test_some_flags_say_that_no_provider_saw_the_request() -> None:
    assert has_never_reached("UH,DC")
    assert not has_never_reached("DC,URX")
    assert not has_never_reached("")
