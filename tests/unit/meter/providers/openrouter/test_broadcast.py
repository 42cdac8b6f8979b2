"""Reading a provider's reports: three words of each span, whatever else is in it."""

import json
from decimal import Decimal
from typing import Any

import pytest

from meter.errors import InvalidRequest
from meter.providers.openrouter.broadcast import MAX_SPANS, read_reports
from meter.providers.provider import Report

TAG = "0123456789abcdef" * 2
OTHER = "f" * 32


def attribute(name: str, text: Any) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": text}}


def span(
    trace_id: Any = TAG, generation_id: Any = "gen-1", *more: dict[str, Any]
) -> dict[str, Any]:
    attributes = [attribute("gen_ai.response.id", generation_id), *more]
    return {"traceId": trace_id, "spanId": "0" * 16, "attributes": attributes}


def payload(*spans: Any) -> bytes:
    scope = {"scope": {"name": "openrouter"}, "spans": list(spans)}
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]}).encode()


def test_reads_tag_and_generation() -> None:
    cost = {"key": "gen_ai.usage.total_cost", "value": {"doubleValue": 0.1}}
    count = {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}}
    assert read_reports(payload(span(TAG, "gen-1", cost, count))) == (
        Report(TAG, "gen-1", Decimal("0.1")),
    )


def test_our_member_goes_before_a_trace_id_of_the_clients() -> None:
    tagged = span(OTHER, "gen-1", attribute("trace.metadata.tollkeeper", TAG))
    assert read_reports(payload(tagged)) == (Report(TAG, "gen-1"),)


def test_trace_ids_may_be_written_in_capitals() -> None:
    assert read_reports(payload(span(TAG.upper()))) == (Report(TAG, "gen-1"),)


def test_a_report_said_twice_is_one() -> None:
    assert read_reports(payload(span(), span(), span(OTHER))) == (
        Report(TAG, "gen-1"),
        Report(OTHER, "gen-1"),
    )


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"resourceSpans":[]}', payload()])
def test_an_empty_payload_reports_nothing(body: bytes) -> None:
    assert read_reports(body) == ()


@pytest.mark.parametrize(
    "odd",
    [
        7,
        None,
        {},
        {"traceId": TAG},
        {"traceId": TAG, "attributes": {}},
        {"traceId": TAG, "attributes": [7, {}, {"key": []}, {"key": "gen_ai.response.id"}]},
        span(TAG, 7),
        span(TAG, None),
        span(TAG, ""),
        span(TAG, "gen 1"),
        span(TAG, "gen-\n1"),
        span(TAG, "gen-\0"),
        span(TAG, "g" * 201),
        span(None),
        span(7),
    ],
)
def test_an_odd_span_takes_nothing_from_the_others(odd: Any) -> None:
    assert read_reports(payload(odd, span(OTHER, "gen-2"))) == (Report(OTHER, "gen-2"),)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"resourceSpans":{}}', b'{"resourceSpans":1}'],
)
def test_what_is_no_payload_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_reports(body)


def test_spans_are_bounded() -> None:
    assert len(read_reports(payload(*[span()] * MAX_SPANS))) == 1
    with pytest.raises(InvalidRequest):
        read_reports(payload(*[span()] * (MAX_SPANS + 1)))
