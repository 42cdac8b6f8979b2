"""Lines of the access-log file mean what the stream's entries mean, or are refused."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from meter.holds.abandoned_check import UndecidedRequest
from meter.ingest.ending import NOTHING_NOTED, EntryFacts, observation_from_facts
from meter.ingest.log_file.lines import read_line
from meter.ingest.stream.wire import facts_from_message
from meter.protos import access_log_pb2 as pb
from meter.usage.usage import Observation, Source
from tests.log_lines import STARTED, fields, line, undecided

HOLD = UUID("4fc90000000000000000000000000001")


def observation(text: bytes) -> Observation:
    meaning = read_line(text).meaning
    assert isinstance(meaning, EntryFacts)
    return observation_from_facts(meaning, Source.FILE)


def streamed(**changes: Any) -> EntryFacts:
    """Return the observation of the stream's entry of the same request."""
    told = fields(HOLD, **changes)
    decision = {"hold_id": told["hold_id"], "is_streaming": told["is_streaming"]}
    spaces: dict[str, Any] = {"envoy.filters.http.ext_authz": decision}
    if told["usage"] is not None:
        spaces["tollkeeper.usage"] = told["usage"]
    if told["upstream_status"] is not None:
        spaces["tollkeeper.upstream"] = {"status": told["upstream_status"]}
    common = {
        "startTime": told["start_time"],
        "duration": f"{told['duration_ms'] / 1000:.3f}s",
        "accessLogType": told["type"],
        "metadata": {"filterMetadata": spaces},
    }
    for name, key in (
        ("timeToFirstUpstreamTxByte", "upstream_sent_ms"),
        ("timeToFirstUpstreamRxByte", "first_upstream_byte_ms"),
    ):
        if told[key] is not None:
            common[name] = f"{told[key] / 1000:.3f}s"
    headers = {"x-generation-id": told["generation_id"]} if told["generation_id"] else {}
    response = {
        "responseCode": told["code"],
        "responseCodeDetails": told["details"],
        "responseBodyBytes": told["response_bytes"],
        "responseHeaders": headers,
    }
    entry = {"commonProperties": common, "response": response}
    message = ParseDict({"httpLogs": {"logEntry": [entry]}}, pb.StreamAccessLogsMessage())
    (facts,) = facts_from_message(message.SerializeToString())
    return facts


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"is_streaming": True, "usage": {"id": "gen", "usage_json": '{"prompt_tokens":1}'}},
        {"usage": None, "generation_id": None},
        {"usage": {"id": "gen-1\x00"}, "generation_id": None},
        {"upstream_status": 402, "code": 503, "usage": None},
        {"code": 502, "details": "upstream_reset_after_response_started{protocol_error}"},
        {"upstream_sent_ms": None, "first_upstream_byte_ms": None, "code": 503},
        {"code": 0, "first_upstream_byte_ms": None, "is_streaming": None},
        {"usage": {"prompt_tokens": 1, "cost": 12.345678901234}},
        {"usage": {"prompt_tokens": 1, "cost": "0.000123", "upstream_inference_cost": 3}},
        {"response_bytes": 0, "duration_ms": 0, "first_upstream_byte_ms": 0},
    ],
)
def test_a_line_is_read_as_the_streams_entry_is(changes: dict[str, Any]) -> None:
    in_file, in_stream = read_line(line(HOLD, **changes)).meaning, streamed(**changes)
    assert in_file == in_stream
    # What is settled is known again by this.
    assert hash(in_file) == hash(in_stream)


@given(st.floats(min_value=0, max_value=1e9, allow_nan=False))
def test_every_cost_is_the_streams(cost: float) -> None:
    usage = {"prompt_tokens": 1, "cost": cost}
    in_file = read_line(line(HOLD, usage=usage)).meaning
    assert in_file == streamed(usage=usage)
    seen = observation(line(HOLD, usage=usage)).usage
    assert seen is not None and seen.cost_usd == Decimal(str(cost))


@pytest.mark.parametrize(
    ("text", "kept"),
    [("-", ""), ("UC,DC", "UC,DC"), ("DC,UC", "UC,DC"), ("NEW,DC", "DC"), ("DC,DC", "DC")],
)
def test_flags_are_kept_in_one_order(text: str, kept: str) -> None:
    assert observation(line(HOLD, flags=text)).response_flags == kept


@pytest.mark.parametrize("kind", ["DownstreamStart", "DownstreamPeriodic", "UpstreamEnd"])
def test_moments_within_a_request_mean_nothing(kind: str) -> None:
    assert read_line(line(HOLD, type=kind)).meaning is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"flags": "DR"},
        {"code": 503, "details": "ext_authz_error", "flags": "UAEX"},
        {"route": "inference_messages"},
    ],
)
def test_a_request_without_a_decision_is_named(changes: dict[str, Any]) -> None:
    request_id = "5d124bdd-b483-4d2d-a53a-39eb931679b3"
    entry = read_line(undecided(request_id=request_id, **changes))
    ended_at = STARTED + timedelta(milliseconds=1234)
    assert entry.meaning == UndecidedRequest(UUID(request_id), ended_at)


@pytest.mark.parametrize(
    "changes",
    [
        {"code": 402, "details": "ext_authz_denied", "flags": "UAEX"},
        {"code": 503, "details": "ext_authz_denied", "flags": "UAEX"},
        {"code": 413, "details": "request_payload_too_large"},
        {"route": "catalogue"},
        {"route": None},
        {"upstream_sent_ms": 1},
    ],
)
def test_a_request_that_no_hold_can_wait_for_is_passed_over(changes: dict[str, Any]) -> None:
    assert read_line(undecided(**changes)).meaning is None


def without(*names: str, **changes: Any) -> bytes:
    told = {key: value for key, value in fields(HOLD, **changes).items() if key not in names}
    return json.dumps(told).encode()


SHORTENED = ("type", "route", "upstream_status", "upstream_attempts", "endpoint", "account_id")


def test_the_short_line_of_an_ordinary_request_says_the_same() -> None:
    assert read_line(without(*SHORTENED)).meaning == streamed()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"a": 1}',
        line(HOLD)[:-1],
        line(HOLD)[1:],
        b"[" * 100_000,
        line(HOLD, duration_ms="x"),
        line(HOLD, duration_ms=-1),
        line(HOLD, code=True),
        line(HOLD, duration_ms=10**30),
        line(HOLD, start_time="yesterday"),
        line(HOLD, start_time="2026-01-02T03:04:05"),
        line(HOLD, start_time=None),
        line(HOLD, flags=None),
        line(HOLD, usage=7),
        line(HOLD, usage={"prompt_tokens": {"value": 1}}),
        line(HOLD, generation_id={}),
        undecided(request_id="no-uuid"),
        undecided(request_id=None),
        # A line of another form must not say that nothing reached the provider.
        without("upstream_sent_ms"),
        without("usage"),
        without("flags"),
        without("details"),
        # Only an ordinary request has a short line.
        without("type", code=503),
        without("upstream_status", code=503),
        without("type", flags="DC"),
        without(*SHORTENED, code=201),
    ],
)
def test_what_is_no_entry_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_line(text)


@given(st.integers(min_value=1, max_value=len(line(HOLD)) - 1))
def test_a_line_behind_a_torn_one_is_found(cut: int) -> None:
    entry = read_line(line(UUID(int=7))[:cut] + line(HOLD, usage=None))
    assert entry.is_torn
    assert isinstance(entry.meaning, EntryFacts) and entry.meaning.hold_id == HOLD.bytes
    assert entry.meaning.usage == NOTHING_NOTED


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_line(text)
