"""Allowances as Envoy reads them, whatever parts of them are kept from one to the next."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from authz.decision import Allow, Edit, LimitStatus
from authz.headers import REMOVED_HEADERS, limit_headers
from authz.protos.ext_authz_pb2 import CheckResponse
from authz.transports import wire
from meter.limits.limits import LimitKind
from meter.sealing import SecretText

IDS = st.text(min_size=1, max_size=200)
EDITS = st.builds(Edit, st.integers(0, 2**31), st.integers(0, 2**31), st.text(max_size=300))
LIMITS = st.builds(
    LimitStatus,
    st.sampled_from(LimitKind),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 60),
)
ALLOWANCES = st.builds(
    Allow,
    st.uuids().map(lambda made: UUID(int=made.int)),
    *(IDS, IDS, IDS),
    st.sampled_from(["chat_completions", "embeddings"]),
    st.sampled_from([SecretText("sk-one"), SecretText("sk-two")]),
    st.lists(EDITS, max_size=3).map(tuple),
    st.lists(LIMITS, max_size=2).map(tuple),
    st.booleans(),
)


@given(ALLOWANCES)
def test_an_allowance_has_its_own_ids_key_edits_and_limits(allow: Allow) -> None:
    read = CheckResponse.FromString(wire.from_decision(allow))
    fields = read.dynamic_metadata.fields
    assert read.status.code == wire.GRPC_OK
    texts = {name: fields[name].string_value for name in fields if name not in ("is_streaming",)}
    texts.pop("edits", None)
    assert texts == {
        "hold_id": allow.hold_id.hex,
        "account_id": allow.account_id,
        "credential_id": allow.credential_id,
        "model": allow.model_id,
        "endpoint": allow.endpoint,
    }
    assert fields["is_streaming"].bool_value is allow.is_streaming
    assert ("edits" in fields) == bool(allow.edits)
    written = fields["edits"].string_value if allow.edits else ""
    assert written == "".join(edit.to_text() for edit in allow.edits)
    headers = [(one.header.key, one.header.value) for one in read.ok_response.headers]
    assert headers == [("authorization", f"Bearer {allow.provider_key.reveal()}")]
    assert tuple(read.ok_response.headers_to_remove) == REMOVED_HEADERS
    added = read.ok_response.response_headers_to_add
    assert [(one.header.key, one.header.value) for one in added] == limit_headers(allow.limits)
