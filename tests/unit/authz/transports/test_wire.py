"""Allowances as Envoy reads them, whatever parts of them are kept from one to the next."""

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from authz.decision import ELSEWHERE, Allow, Edit, LimitStatus, Upstream
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
KEYS = st.sampled_from([SecretText("sk-one"), SecretText("sk-two")])
PROVIDERS = st.sampled_from(["openai", "google", "my_vllm"])
UPSTREAMS = st.builds(
    Upstream,
    st.sampled_from(["provider-openai", "route-fast"]),
    st.just("anthropic"),
    st.booleans(),
    st.lists(st.tuples(PROVIDERS, KEYS), max_size=2, unique_by=lambda one: one[0]).map(tuple),
)
ALLOWANCES = st.builds(
    Allow,
    st.uuids().map(lambda made: UUID(int=made.int)),
    *(IDS, IDS, IDS),
    st.sampled_from(["chat_completions", "embeddings"]),
    KEYS,
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


@given(ALLOWANCES, UPSTREAMS)
def test_an_allowance_off_the_default_path_names_its_provider_and_hides_its_keys(
    allow: Allow, upstream: Upstream
) -> None:
    plain = CheckResponse.FromString(wire.from_decision(allow))
    read = CheckResponse.FromString(wire.from_decision(replace(allow, upstream=upstream)))
    fields = read.dynamic_metadata.fields
    assert fields["cluster"].string_value == upstream.cluster
    assert fields["provider"].string_value == upstream.provider
    assert fields["is_own_key"].bool_value is upstream.is_own_key
    usual = {name: one for name, one in plain.dynamic_metadata.fields.items() if name != "edits"}
    assert {name: value for name, value in fields.items() if name in usual} == usual
    assert fields["edits"].string_value == ELSEWHERE + allow.edits_text
    assert ("fallbacks" in fields) == bool(upstream.fallbacks)
    assert "sk-" not in str(read.dynamic_metadata) + str(read.ok_response.response_headers_to_add)
    headers = {one.header.key: one.header.value for one in read.ok_response.headers}
    assert all(one.append_action == wire._OVERWRITE for one in read.ok_response.headers)
    assert headers.pop("authorization") == f"Bearer {allow.provider_key.reveal()}"
    assert headers.pop("tk-cluster") == upstream.cluster
    # Each provider that may be asked finds its own credential, the first one too.
    in_turn = ((upstream.provider, allow.provider_key), *upstream.fallbacks)
    assert headers == {
        f"tk-key-{provider}": f"Bearer {key.reveal()}"
        for provider, key in (in_turn if upstream.fallbacks else ())
    }
    assert tuple(read.ok_response.headers_to_remove) == REMOVED_HEADERS
