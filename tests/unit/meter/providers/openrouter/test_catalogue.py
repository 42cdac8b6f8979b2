"""Reading the provider's catalogue: one odd model takes nothing from the others."""

import json

import pytest

from meter.errors import ProviderUnavailable
from meter.providers.openrouter.catalogue import MAX_TOKENS, read_catalogue

PLAIN = '{"id": "a/b", "pricing": {"prompt": "0.1", "completion": "0.1"}}'
PRICED = '"pricing": {"prompt": "0.1", "completion": "0.1"}'


def catalogue(*models: str) -> bytes:
    return f'{{"data": [{", ".join(models)}]}}'.encode()


@pytest.mark.parametrize(
    "member",
    [
        r'"name": "odd\u0000\ud800name"',
        r'"description": "odd\u0000"',
        r'"architecture": {"\udfff\u0000": ["\u0000", 1.5, 1e999, NaN]}',
        '"created": 1700000000.5',
        '"context_length": 1' + "0" * 30,
        '"top_provider": {"max_completion_tokens": 9223372036854775808}',
    ],
)
def test_what_is_read_can_be_stored(member: str) -> None:
    offered = read_catalogue(catalogue(PLAIN, f'{{"id": "c/d", {member}, {PRICED}}}'))
    assert [model.id for model in offered.models] == ["a/b", "c/d"]
    odd = offered.models[1]
    stored = odd.name + json.dumps(odd.listing, allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in stored
    assert "\0" not in stored
    stored.encode()
    assert max(odd.context_length, odd.max_completion_tokens) <= MAX_TOKENS


@pytest.mark.parametrize(
    "odd",
    [
        rf'{{"id": "c\u0000d", {PRICED}}}',
        '{"id": "c/d", "pricing": {"prompt": "-1", "completion": "-1"}}',
        f'{{"id": "c/d", "created": {"[" * 300}{"]" * 300}, "pricing": 1}}',
    ],
)
def test_what_cannot_be_priced_or_named_is_not_offered(odd: str) -> None:
    offered = read_catalogue(catalogue(PLAIN, odd))
    assert [model.id for model in offered.models] == ["a/b"]
    assert offered.unpriced == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": 1}', b"[" * 100_000, b'{"data": [1e9999999999999999999]}'],
)
def test_what_is_no_catalogue_is_an_outage_of_the_provider(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        read_catalogue(body)
