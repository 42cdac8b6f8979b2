"""Each row of the table "How every hold ends" in docs/operations.md."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from meter.holds.hold import Hold, HoldState
from meter.ingest.ending import (
    FROM_UPSTREAM,
    EntryFacts,
    NotedUsage,
    observation_from_facts,
)
from meter.pricing.prices import Price
from meter.settlement.outcome import Released, Settled, decide_outcome
from meter.usage.response_flags import join_flags
from meter.usage.usage import Source
from tests.paths import ROOT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLD_ID = UUID(int=7)
PAID = Price(1, "m", NOW, 150_000, 600_000)
FREE = Price(1, "m", NOW, 0, 0)
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "cost": 0.001}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}
FULL_JSON = '{"prompt_tokens":10,"completion_tokens":20,"cost":0.001}'
LESS_JSON = '{"prompt_tokens":10,"completion_tokens":2,"cost":0.0001}'
ZERO_JSON = '{"prompt_tokens":0,"completion_tokens":0,"cost":0}'
# Of streams of Messages, which open with usage, and end with the rest.
START_JSON = '{"input_tokens":6,"cache_read_input_tokens":4,"output_tokens":1}'
END_JSON = '{"output_tokens":20,"cost":0.001}'
END_WITHOUT_COST = '{"output_tokens":20}'
NOT_SENT: dict[str, Any] = {
    "upstream_sent_ms": None,
    "first_byte_ms": None,
    "generation_id": None,
    "usage": {},
}
ERROR = {"has_error": True}
LEFT = {"flags": ["DC"], "status_details": "downstream_remote_disconnect", "usage": {}}


@dataclass(frozen=True)
class Row:
    """A row of the table: the words, log entries that show it, and the verdict."""

    shows: str
    verdict: str
    entries: list[dict[str, Any]] = field(repr=False)
    price: Price = PAID


def answered(code: int, **more: Any) -> dict[str, Any]:
    """A provider's own answer with this status, whole and without an id or usage."""
    return {"status_code": code, "generation_id": None, "usage": {}, **more}


def own_reply(code: int, details: str, *flags: str, **more: Any) -> dict[str, Any]:
    """Envoy's answer in place of the provider's."""
    own = {"flags": flags, "status_details": details, "first_byte_ms": None}
    return {**answered(code), **own, **more}


CUT = "upstream_reset_before_response_started{connection_termination}"
ROWS = [
    Row(
        "usage with a cost above 0",
        "settled",
        [
            {},
            {"usage": {"usage_json": FULL_JSON}},
            {"usage": {"usage_json": FULL_JSON, "first_usage_json": LESS_JSON}},
            {"usage": {"usage_json": FULL_JSON, "first_usage_json": ZERO_JSON}},
            {"usage": {"usage_json": FULL_JSON, "first_usage_json": "null"}},
            {**LEFT, "usage": USAGE},
            {"usage": {"fresh_tokens": 6, "cached_tokens": 4, "completion_tokens": 2, "cost": 1}},
            {"usage": {"start_usage_json": START_JSON, "usage_json": END_JSON}},
            {"usage": {"search_units": 1, "cost": 0.001}},
            {"usage": {"seconds": 9.2, "cost": 0.001}},
        ],
    ),
    Row(
        "usage with a cost of 0, of a free model or with an own key",
        "settled",
        [{"usage": {**USAGE, "cost": 0}}, {"usage": {**USAGE, "cost": 0, "is_byok": True}}],
        FREE,
    ),
    Row(
        "usage with a cost of 0 otherwise, an empty reply included",
        "unknown: `zero_cost`",
        [
            {"usage": {**USAGE, "cost": 0}},
            {"usage": {**USAGE, "completion_tokens": 0, "cost": 0}},
        ],
    ),
    Row(
        "usage without a cost, or with one that is null, text or negative",
        "unknown: `no_cost`",
        [
            {"usage": {**USAGE, "cost": cost}}
            for cost in (None, "0.001", "free", -0.001, float("nan"), True)
        ]
        + [{"endpoint": "messages", "usage": {**USAGE, "cost": None}}],
    ),
    Row(
        "usage without a cost in a stream of Messages, where the provider names none",
        "unknown: `cost_in_record`",
        [
            {
                "endpoint": "messages",
                "is_streaming": True,
                "usage": {"start_usage_json": START_JSON, "usage_json": END_WITHOUT_COST},
            }
        ],
    ),
    Row(
        "usage without a token or a cost, or a last usage that is less than the first",
        "unknown: `no_usage`",
        [
            {"usage": ZEROS},
            {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
            {"usage": {"usage_json": ZERO_JSON}},
            {"usage": {"usage_json": ZERO_JSON, "first_usage_json": FULL_JSON}},
            {"usage": {"usage_json": LESS_JSON, "first_usage_json": FULL_JSON}},
            {"usage": {"usage_json": "null", "first_usage_json": FULL_JSON}},
            {**LEFT, "usage": ZEROS},
            {**LEFT, "usage": {"start_usage_json": START_JSON}},
            {"usage": {"start_usage_json": START_JSON, "usage_json": "null"}},
            {"usage": {"start_usage_json": FULL_JSON, "usage_json": LESS_JSON}},
        ],
    ),
    Row(
        "usage beside an error, or of a request that was not sent",
        "unknown: `contradiction`",
        [
            {"status_code": 502},
            {"status_code": 429},
            {"usage": {**USAGE, **ERROR}},
            {**NOT_SENT, "usage": USAGE},
        ],
    ),
    Row(
        "no byte was sent to the provider, or flags UH, UF, UO, NR, NC, RL or UAEX; no reply",
        "released: `never_reached`",
        [
            own_reply(503, "no_healthy_upstream", "UH", **NOT_SENT),
            own_reply(503, "upstream_reset_before_response_started{connection_failure}", "UF"),
        ],
    ),
    Row(
        "a status from 300 to 499 other than 408 and 499, without a generation id",
        "released: `refused_upstream`",
        [answered(code) for code in (307, 400, 401, 402, 403, 404, 422, 429)]
        + [answered(503, upstream_status=402.0), answered(429, flags=["DC"])],
    ),
    Row(
        "200 with an error of at most 16 KiB and no usage, without a generation id",
        "released: `refused_upstream`",
        [
            answered(200, usage=ERROR),
            answered(200, usage={"error_json": '{"code":502}'}, is_streaming=True),
            answered(200, **{**LEFT, "usage": ERROR}),
        ],
    ),
    Row(
        "200 with a whole body of less than 16 bytes, without a generation id",
        "released: `refused_upstream`",
        [answered(200, response_bytes=size) for size in (0, 5, 15)],
    ),
    Row(
        "one of the last three with a generation id",
        "unknown: `failed`",
        [
            {**answered(400), "generation_id": "gen-1"},
            {**answered(200, usage=ERROR), "generation_id": "gen-1"},
            {**answered(200, response_bytes=0), "generation_id": "gen-1"},
            answered(200, usage={**ERROR, "id": "gen-1"}),
        ],
    ),
    Row(
        "a status from 500 that is not in the next row",
        "unknown: `failed`",
        [answered(code) for code in (500, 501, 502, 503, 529, 599)]
        + [{**answered(503), "generation_id": "gen-1"}],
    ),
    Row(
        "408, 499, 504 or 520 to 527: something in between gave up waiting",
        "unknown: `no_usage`",
        [answered(code) for code in (408, 499, 504, 520, 524, 527)],
    ),
    Row(
        "the provider closed the connection within a second of the request, without a byte",
        "unknown: `failed`",
        [
            # Envoy's own reply has an `error` too, and passes the same filters.
            own_reply(503, CUT, flag, duration_ms=1_000, usage=usage)
            for flag in ("UC", "UR", "UPE")
            for usage in ({}, ERROR)
        ],
    ),
    Row(
        "it closed the connection later, or in the middle of its reply",
        "unknown: `no_usage`",
        [
            own_reply(503, CUT, "UC", duration_ms=1_002),
            own_reply(503, CUT, "UC", duration_ms=1_002, usage=ERROR),
            own_reply(502, "upstream_reset_after_response_started", "UPE", first_byte_ms=30),
            own_reply(500, "response_payload_too_large", first_byte_ms=30, usage=ERROR),
            own_reply(504, "upstream_response_timeout", "UT"),
        ],
    ),
    Row(
        "the client left before the reply, or in the middle of it",
        "unknown: `no_usage`",
        [
            {**LEFT, "generation_id": None, "first_byte_ms": None, "status_code": 0},
            {**LEFT, "response_bytes": 0},
            LEFT,
        ],
    ),
    Row(
        "a reply without usage; an error after more than 16 KiB of text",
        "unknown: `no_usage`",
        [
            {"usage": {}},
            answered(200),
            {"usage": ERROR, "response_bytes": 20_000, "is_streaming": True},
        ],
    ),
]


def verdict(entry: dict[str, Any], price: Price) -> str:
    """The verdict on an entry, as the table words it."""
    facts: dict[str, Any] = {
        "hold_id": HOLD_ID.bytes,
        "started_at": NOW,
        "duration_ms": 900,
        "first_byte_ms": 30,
        "status_code": 200,
        "status_details": "via_upstream",
        "flags": (),
        "upstream_sent_ms": 1,
        "is_streaming": False,
        "generation_id": "gen-1",
        "usage": USAGE,
        "upstream_status": None,
        "response_bytes": 600,
        **entry,
    }
    endpoint = facts.pop("endpoint", "chat_completions")
    facts["is_upstreams"] = facts.pop("status_details") == FROM_UPSTREAM
    facts["flags"] = join_flags(facts["flags"])
    facts["usage"] = NotedUsage(**facts["usage"])
    seen = observation_from_facts(EntryFacts(**facts), Source.STREAM)
    hold = Hold(HOLD_ID, NOW, "a", "c", "m", endpoint, 1, 0, 9, 0, 9, HoldState.OPEN)
    outcome = decide_outcome(seen, hold, price)
    if isinstance(outcome, Settled):
        return "settled"
    if isinstance(outcome, Released):
        return f"released: `{outcome.ending}`"
    return f"unknown: `{outcome.reason}`"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.shows)
def test_a_row_of_the_table(row: Row) -> None:
    for entry in row.entries:
        assert verdict(entry, row.price) == row.verdict, entry


def test_the_table_in_the_manual_is_this_one() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    for row in ROWS:
        assert f"| {row.shows} | {row.verdict} |" in text
