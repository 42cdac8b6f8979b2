"""Reading what the provider's own books say: exact numbers, or an outage, never a guess."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from meter.errors import ProviderUnavailable
from meter.providers.fetching import MAX_RETRY_AFTER_S, read_retry_after
from meter.providers.openrouter.generations import read_generation
from meter.providers.openrouter.key_usage import read_key_usage
from meter.usage.usage import ReportedUsage, TokenCounts

ID = "gen-1-a"
RECORD = (
    '"id":"gen-1-a","total_cost":0.0000123456789012,"is_byok":false,"cancelled":true,'
    '"streamed":true,"created_at":"2030-01-01T02:00:00.5+02:00","model":"acme/one",'
    '"tokens_prompt":1,"tokens_completion":2,"native_tokens_prompt":11,'
    '"native_tokens_completion":7,"native_tokens_reasoning":3,"native_tokens_cached":4'
)


def reply(members: str) -> bytes:
    return f'{{"data":{{{members}}}}}'.encode()


def test_a_record_is_read_exactly() -> None:
    record = read_generation(reply(RECORD), ID)
    assert record.generation_id == ID
    assert record.usage == ReportedUsage(
        tokens=TokenCounts(prompt=11, completion=7, cached=4, reasoning=3),
        cost_usd=Decimal("0.0000123456789012"),
    )
    assert record.is_cancelled
    assert record.is_streamed
    assert record.created_at == datetime(2030, 1, 1, 0, 0, 0, 500_000, UTC)
    assert record.model == "acme/one"


def test_a_key_of_the_users_own_is_told_apart() -> None:
    usage = read_generation(
        reply('"total_cost":0,"is_byok":true,"upstream_inference_cost":0.25'), ID
    ).usage
    assert usage.is_byok
    assert usage.cost_usd == 0
    assert usage.upstream_cost_usd == Decimal("0.25")


def test_counts_fall_back_to_the_providers_own_and_costs_do_not() -> None:
    members = (
        '"total_cost":1e-3,"native_tokens_prompt":null,"tokens_prompt":5,"created_at":"soon",'
        '"upstream_inference_cost":null,"model":null'
    )
    record = read_generation(reply(members), ID)
    assert record.usage.tokens == TokenCounts(prompt=5, completion=0)
    assert record.usage.cost_usd == Decimal("0.001")
    assert record.created_at is None
    assert record.model is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"data":[]}',
        b'{"data":null}',
        b"\xff",
        b"[" * 100_000,
        reply(""),
        reply('"total_cost":null'),
        reply('"total_cost":"1"'),
        reply('"total_cost":true'),
        reply('"total_cost":-0.1'),
        reply('"total_cost":NaN'),
        reply('"total_cost":Infinity'),
        reply('"total_cost":1e30'),
        reply('"total_cost":1e9999999999999999999'),
        reply('"total_cost":1,"id":"gen-2"'),
        reply('"total_cost":1,"id":null'),
        reply('"total_cost":1,"native_tokens_prompt":1.5'),
        reply('"total_cost":1,"native_tokens_prompt":-1'),
        reply('"total_cost":1,"native_tokens_prompt":true'),
        reply('"total_cost":1,"upstream_inference_cost":"x"'),
    ],
)
def test_what_is_no_record_is_an_outage_of_the_provider(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        read_generation(body, ID)


def test_the_total_of_a_key_is_exact() -> None:
    assert read_key_usage(b'{"data":{"usage":25.500000000001}}') == Decimal("25.500000000001")
    assert read_key_usage(b'{"data":{"usage":0}}') == 0


@pytest.mark.parametrize("body", [b"", b'{"data":{}}', b'{"data":{"usage":"1"}}', b'{"usage":1}'])
def test_a_key_without_a_total_is_an_outage(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        read_key_usage(body)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("-7", None),
        ("1.5", None),
        ("999999999", float(MAX_RETRY_AFTER_S)),
        ("9" * 5_000, None),
        ("Wed, 21 Oct 2030 07:28:00 GMT", None),
    ],
)
def test_waits_are_bounded(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds
