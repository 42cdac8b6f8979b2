"""Reading the provider's catalogue: one odd model takes nothing from the others."""

import json

import pytest

from meter.errors import ProviderUnavailable
from meter.providers.openrouter.catalogue import (
    MAX_REASON_CHARS,
    MAX_TOKENS,
    UNASKED_SEARCHES,
    read_catalogue,
)

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
    assert len(offered.withheld) == 1
    assert offered.withheld[0].reason


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": 1}', b"[" * 100_000, b'{"data": [1e9999999999999999999]}'],
)
def test_what_is_no_catalogue_is_an_outage_of_the_provider(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        read_catalogue(body)


def priced(**members: object) -> str:
    """A model with these price members beside the two that each model has."""
    pricing = {"prompt": "0.000001", "completion": "0.000002", **members}
    return json.dumps({"id": "c/d", "pricing": pricing})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("surcharge", "0.001"),
        ("surcharge", 0.001),
        ("surcharge", {"a": 1}),
        ("surcharge", ["x"]),
        ("surcharge", True),
        ("surcharge", "free"),
        ("image_output", "-1"),
        ("audio", "much"),
        ("audio", [1]),
        ("request", "1e30"),
        ("discount", "-0.1"),
        ("discount", 2),
        ("overrides", {}),
        ("overrides", ["x"]),
        ("overrides", [{"min_prompt_tokens": "many", "prompt": "1"}]),
        ("overrides", [{"min_prompt_tokens": 1, "prompt": "-1"}]),
        ("overrides", [{"utc_start": "16:30", "prompt": "0.000002"}]),
        ("overrides", [{"min_prompt_tokens": 9, "surcharge": "1", "prompt": "0.1"}]),
        ("overrides", [{"min_prompt_tokens": at, "prompt": "1"} for at in range(17)]),
        ("pricing_overrides", [{"region": "x", "completion": "1"}]),
    ],
)
def test_a_price_that_is_not_understood_withholds_the_model(member: str, value: object) -> None:
    offered = read_catalogue(catalogue(PLAIN, priced(**{member: value})))
    assert [model.id for model in offered.models] == ["a/b"]
    (withheld,) = offered.withheld
    assert withheld.id == "c/d"
    assert 1 <= len(withheld.reason) <= MAX_REASON_CHARS


def test_the_reason_names_the_price_that_is_not_understood() -> None:
    (withheld,) = read_catalogue(catalogue(PLAIN, priced(surcharge="0.1"))).withheld
    assert withheld.reason == "The price member 'surcharge' is not understood."


@pytest.mark.parametrize("nothing", ["0", 0, None, [], {}, "0.000"])
def test_a_price_of_nothing_needs_not_be_understood(nothing: object) -> None:
    assert read_catalogue(catalogue(priced(surcharge=nothing))).models[0].id == "c/d"


def test_every_understood_price_is_read() -> None:
    names = {
        "request": "request_picos",
        "image": "image_picos",
        "web_search": "web_search_picos",
        "internal_reasoning": "reasoning_picos",
        "input_cache_read": "cache_read_picos",
        "input_cache_write": "cache_write_picos",
        "input_cache_write_1h": "cache_write_1h_picos",
        "image_token": "image_token_picos",
        "image_output": "image_output_picos",
        "audio": "audio_picos",
        "audio_output": "audio_output_picos",
        "input_audio_cache": "audio_cache_picos",
    }
    texts = {name: f"0.{place:012}" for place, name in enumerate(names, 1)}
    (read,) = read_catalogue(catalogue(priced(**texts, discount=0.25))).models
    for place, field in enumerate(names.values(), 1):
        assert getattr(read, field) == place


def test_tiers_overlay_each_other_in_the_order_of_the_listing() -> None:
    overrides = [
        {"min_prompt_tokens": 200_000, "prompt": "0.000004"},
        {"min_prompt_tokens": 100_000, "prompt": "0.000003", "completion": "0.000005"},
        {"utc_start": "16:30", "utc_end": "00:30", "prompt": "0.0000005"},
    ]
    (read,) = read_catalogue(catalogue(priced(overrides=overrides))).models
    assert read.tiers == (
        {
            "min_prompt_tokens": 100_000,
            "prompt_picos": 3_000_000,
            "completion_picos": 5_000_000,
        },
        # The later entry applies as well, and replaces the prompt's price.
        {
            "min_prompt_tokens": 200_000,
            "prompt_picos": 3_000_000,
            "completion_picos": 5_000_000,
        },
    )


def replying(*kinds: object, **members: str) -> str:
    pricing = {"prompt": "0.000001", "completion": "0.000002", **members}
    return json.dumps(
        {"id": "c/d", "architecture": {"output_modalities": list(kinds)}, "pricing": pricing}
    )


@pytest.mark.parametrize("kinds", [("image",), ("text", "audio"), ("text", "video"), (7,)])
def test_a_kind_of_reply_without_a_price_withholds_the_model(kinds: tuple[object, ...]) -> None:
    offered = read_catalogue(catalogue(PLAIN, replying(*kinds)))
    assert [model.id for model in offered.withheld] == ["c/d"]


def test_a_kind_of_reply_with_a_price_is_offered() -> None:
    listed = replying("text", "image", "audio", image_output="0.1", audio_output="0.1")
    assert not read_catalogue(catalogue(listed)).withheld


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_price_of_nothing_for_pictures_is_believed_of_free_models_only(kind: str) -> None:
    """Their prices may stand in another listing."""
    nothing = replying(kind, prompt="0", completion="0")
    offered = read_catalogue(catalogue(nothing, nothing.replace("c/d", "c/e:free")))
    assert [model.id for model in offered.models] == ["c/e:free"]
    assert [model.id for model in offered.withheld] == ["c/d"]


@pytest.mark.parametrize(
    ("kind", "completion", "is_offered"),
    [
        ("rerank", "0", True),
        ("speech", "0", True),
        ("transcription", "0", True),
        # Tokens of sound or of a transcript, whose number nothing bounds.
        ("speech", "0.00001", False),
        ("transcription", "0.000005", False),
    ],
)
def test_speech_and_transcriptions_by_the_token_are_withheld(
    kind: str, completion: str, is_offered: bool
) -> None:
    offered = read_catalogue(catalogue(PLAIN, replying(kind, completion=completion)))
    assert [model.id for model in offered.models] == ["a/b", "c/d"][: 1 + is_offered]
    assert [model.id for model in offered.withheld] == ["c/d"][is_offered:]


def searching(model_id: str, **pricing: str) -> str:
    prices = {"prompt": "0.000001", "completion": "0.000001", **pricing}
    return json.dumps({"id": model_id, "pricing": prices})


@pytest.mark.parametrize(
    ("model_id", "searches"),
    [
        ("perplexity/sonar-pro", UNASKED_SEARCHES),
        ("openai/gpt-4o-search-preview", UNASKED_SEARCHES),
        ("openai/gpt-4o-search-preview:nitro", UNASKED_SEARCHES),
        ("openai/gpt-5", 0),
        ("perplexity/r1-1776", 0),
    ],
)
def test_models_that_search_unasked_are_known(model_id: str, searches: int) -> None:
    (read,) = read_catalogue(catalogue(searching(model_id, web_search="0.01"))).models
    assert read.unasked_searches == searches


@pytest.mark.parametrize(
    "entry",
    [
        searching("perplexity/sonar-deep-research", web_search="0.005"),
        searching("openai/o3-deep-research", web_search="0.01"),
        searching("perplexity/sonar"),
    ],
)
def test_searches_that_nothing_bounds_withhold_the_model(entry: str) -> None:
    assert len(read_catalogue(catalogue(PLAIN, entry)).withheld) == 1


def test_of_two_entries_for_a_model_the_one_that_is_not_understood_decides() -> None:
    for entries in ((priced(), priced(surcharge="1")), (priced(surcharge="1"), priced())):
        offered = read_catalogue(catalogue(*entries))
        assert not offered.models
        assert [model.id for model in offered.withheld] == ["c/d"]
