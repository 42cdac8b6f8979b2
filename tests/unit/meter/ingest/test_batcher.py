"""Access-log entries become observations; observations wait, survive outages and come apart."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import ParseDict
from prometheus_client import CollectorRegistry

from meter.errors import BrokenInvariant
from meter.ingest.batcher import Batcher
from meter.ingest.ending import observation_from_facts
from meter.ingest.metrics import IngestMetrics
from meter.ingest.stream.wire import facts_from_message
from meter.ingest.usage_text import usage_from_json
from meter.protos import access_log_pb2 as pb
from meter.settlement.changes import SettlementChanges
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts
from tests.books import observed
from tests.log_entries import entry_of
from tests.patience import WAIT_S
from tests.settlements import FakeSettlementStore

HOLD = UUID("4fc90000000000000000000000000001")


def message(**changes: Any) -> bytes:
    """One message with one entry, as Envoy sends it for a JSON reply."""
    entry: dict[str, Any] = {
        "commonProperties": {
            "startTime": "2026-01-02T03:04:05.678901Z",
            "timeToFirstUpstreamTxByte": "0.001s",
            "timeToFirstUpstreamRxByte": "0.0305s",
            "duration": "1.234s",
            "accessLogType": "DownstreamEnd",
            "metadata": {
                "filterMetadata": {
                    "envoy.filters.http.ext_authz": {
                        "hold_id": HOLD.hex,
                        "account_id": "a",
                        "is_streaming": False,
                    },
                    "tollkeeper.usage": {
                        "id": "gen-body",
                        "prompt_tokens": 12.0,
                        "completion_tokens": 34.0,
                        "cached_tokens": 3.0,
                        "reasoning_tokens": 5.0,
                        "cost": 1.234567e-06,
                        "is_byok": False,
                    },
                }
            },
        },
        "response": {
            "responseCode": 200,
            "responseCodeDetails": "via_upstream",
            "responseHeaders": {"x-generation-id": "gen-header"},
        },
    }
    _merge(entry, changes)
    parsed = ParseDict({"httpLogs": {"logEntry": [entry]}}, pb.StreamAccessLogsMessage())
    return parsed.SerializeToString()


def _merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif value is None and key in target:
            del target[key]
        else:
            target[key] = value


def namespaces(is_streaming: bool = False, **usage: Any) -> dict[str, Any]:
    found = {
        "tollkeeper.usage": usage,
        "envoy.filters.http.ext_authz": {"is_streaming": is_streaming},
    }
    return {"commonProperties": {"metadata": {"filterMetadata": found}}}


def one(payload: bytes) -> Observation:
    (facts,) = facts_from_message(payload)
    return observation_from_facts(facts, Source.STREAM)


def test_a_json_reply_is_read_whole() -> None:
    assert one(message()) == Observation(
        hold_id=HOLD,
        started_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        latency_ms=1234,
        time_to_first_byte_ms=30,
        status_code=200,
        provider_status=200,
        response_flags="",
        reached_provider=True,
        is_streaming=False,
        generation_id="gen-header",
        usage=ReportedUsage(
            TokenCounts(prompt=12, completion=34, cached=3, reasoning=5),
            cost_usd=Decimal("0.000001234567"),
        ),
        source=Source.STREAM,
        upstream_ms=1233,
    )


def test_a_streamed_reply_is_read_from_its_text() -> None:
    text = '{"prompt_tokens":1,"completion_tokens":2,"cost":0.000000000001}'
    payload = message(**namespaces(is_streaming=True, usage_json=text, prompt_tokens=None))
    observation = one(payload)
    assert observation.is_streaming
    assert observation.usage == ReportedUsage(TokenCounts(1, 2), cost_usd=Decimal("1e-12"))


@pytest.mark.parametrize("cost", ["0.000000000001", "12.345678901234", "999.999999999999", "0.1"])
def test_costs_of_fifteen_digits_survive_the_double(cost: str) -> None:
    usage = one(message(**namespaces(cost=float(cost)))).usage
    assert usage is not None
    assert usage.cost_usd == Decimal(cost)


def test_a_client_that_left_leaves_no_usage_but_the_generation() -> None:
    payload = message(
        commonProperties={
            "responseFlags": {"downstreamConnectionTermination": True},
            "metadata": {"filterMetadata": {"tollkeeper.usage": None}},
        },
        response={"responseCode": 200},
    )
    observation = one(payload)
    assert observation.usage is None
    assert observation.response_flags == "DC"
    assert observation.generation_id == "gen-header"


def test_what_the_provider_answered_is_known_when_the_client_saw_another_status() -> None:
    status = {"filterMetadata": {"tollkeeper.upstream": {"status": 402.0}}}
    payload = message(commonProperties={"metadata": status}, response={"responseCode": 503})
    observation = one(payload)
    assert (observation.status_code, observation.provider_status) == (503, 402)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (502, "upstream_reset_after_response_started{protocol_error}"),
        (500, "response_payload_too_large"),
    ],
)
def test_an_error_of_envoys_own_is_no_refusal_of_the_provider(code: int, details: str) -> None:
    """It had begun to answer, so it may have billed."""
    response = {"responseCode": code, "responseCodeDetails": details, "responseHeaders": None}
    observation = one(message(response=response))
    assert (observation.status_code, observation.provider_status) == (code, None)


def test_a_request_that_was_never_sent_up_is_told_apart() -> None:
    common = {"timeToFirstUpstreamTxByte": None, "timeToFirstUpstreamRxByte": None}
    observation = one(message(commonProperties=common, response={"responseCode": 503}))
    assert not observation.reached_provider
    assert observation.provider_status is None
    assert observation.time_to_first_byte_ms is None


@pytest.mark.parametrize("kind", ["DownstreamStart", "DownstreamPeriodic", "UpstreamEnd"])
def test_moments_within_a_request_are_not_endings(kind: str) -> None:
    payload = message(commonProperties={"accessLogType": kind})
    assert facts_from_message(payload) == []


@pytest.mark.parametrize("hold_id", [None, 7.0, "", "no-uuid", {"a": "b"}])
def test_entries_without_a_hold_owe_nothing(hold_id: object) -> None:
    decision = {"filterMetadata": {"envoy.filters.http.ext_authz": {"hold_id": hold_id}}}
    payload = message(commonProperties={"metadata": decision})
    assert facts_from_message(payload) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("gen-1", "gen-1"), ("gen\x00-1\n", "gen-1"), ("\x00", None), ("g" * 999, "g" * 200)],
)
def test_a_generation_id_is_kept_as_far_as_it_can_be_stored(sent: str, kept: str | None) -> None:
    payload = message(response={"responseHeaders": {"x-generation-id": sent}})
    assert one(payload).generation_id == kept


def test_a_message_that_cannot_be_read_says_so() -> None:
    with pytest.raises(ValueError, match="StreamAccessLogsMessage"):
        facts_from_message(b"\xff\xff")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"usage"',
        "{}",
        '{"prompt_tokens": null}',
        '{"prompt_tokens": -1}',
        '{"prompt_tokens": true}',
        '{"prompt_tokens": 1e99}',
        '{"prompt_tokens": "NaN"}',
        '{"prompt_tokens": 1.5}',
        '{"prompt_tokens": 1, "completion_tokens": -1, "cost": 0}',
        '{"prompt_tokens": 1, "completion_tokens": 1e99}',
        '{"prompt_tokens": 1, "cost": 1e9999999999999999999}',
        '{"prompt_tokens": 1, "cost": NaN}',
        '{"prompt_tokens": 1} {}',
        "{" * 100_000,
        " " * 70_000,
    ],
)
def test_what_is_no_usage_is_unknown_not_zero(text: str) -> None:
    assert usage_from_json(text) is None


@pytest.mark.parametrize("cost", ["-1", '"x"', '"NaN"', "null", "true", "{}"])
def test_a_cost_that_is_none_is_absent(cost: str) -> None:
    usage = usage_from_json(f'{{"prompt_tokens": 1, "cost": {cost}}}')
    assert usage is not None
    assert usage.cost_usd is None


async def settled_through(settlements: FakeSettlementStore, endings: list[Observation]) -> Batcher:
    batcher = Batcher(settlements, IngestMetrics(CollectorRegistry()))
    batcher.start()
    for ending in endings:
        await batcher.put([entry_of(ending)], Source.STREAM)
    assert await batcher.drain() == 0
    return batcher


async def test_an_outage_delays_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.ingest.batcher.RETRY_FIRST_S", 0.001)
    settlements = FakeSettlementStore(outages=3)
    endings = [observed(uuid4()) for _ in range(5)]
    await settled_through(settlements, endings)
    assert settlements.settled == [ending.hold_id for ending in endings]


async def test_one_bad_entry_does_not_hold_up_the_others() -> None:
    endings = [observed(uuid4()) for _ in range(9)]
    settlements = FakeSettlementStore(poison=endings[4].hold_id)
    await settled_through(settlements, endings)
    assert settlements.settled == [each.hold_id for each in endings if each is not endings[4]]


async def test_a_broken_invariant_is_not_settled_around() -> None:
    class Broken(FakeSettlementStore):
        async def settle(self, observations: Sequence[Observation]) -> list[SettlementChanges]:
            raise BrokenInvariant("the books contradict themselves")

    batcher = Batcher(Broken(), IngestMetrics(CollectorRegistry()))
    settling = batcher.start()
    await batcher.put([entry_of(observed(uuid4()))], Source.STREAM)
    with pytest.raises(BrokenInvariant):
        await asyncio.wait_for(settling, WAIT_S)


async def test_a_full_queue_makes_the_reader_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.ingest.batcher.QUEUE_LIMIT", 2)
    batcher = Batcher(FakeSettlementStore(), IngestMetrics(CollectorRegistry()))
    entries = [entry_of(observed(uuid4())) for _ in range(3)]
    await batcher.put(entries[:2], Source.STREAM)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(batcher.put(entries[2:], Source.STREAM), 0.02)
    assert batcher.waiting == 2
