"""The estimate of a message's tokens: free, from the bytes alone, for callers that may infer."""

import json
from typing import Any

import pytest

from meter.api.own.token_counts import (
    TOKENS_FOR_TOOLS,
    TOKENS_PER_IMAGE,
    TOKENS_PER_PAGE,
    estimate_tokens,
)
from tests.books import USD, Books
from tests.meter_api import MeterApi

PATH = "/v1/messages/count_tokens"


def estimate(*blocks: dict[str, Any], **members: Any) -> int:
    asked = {"model": "m", "messages": [{"role": "user", "content": list(blocks)}], **members}
    return estimate_tokens(json.dumps(asked).encode(), "tools" in members)


def test_text_images_and_pages_are_estimated_apart() -> None:
    empty = estimate()
    assert estimate({"type": "text", "text": "word " * 700}) == pytest.approx(1_000, abs=empty + 9)
    image = {"type": "base64", "media_type": "image/png", "data": "iVBOR" * 9_000}
    remote = {"type": "url", "url": "https://example.com/a.png"}
    paper = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi" + "A" * 130_000}
    assert 0 < estimate({"source": image}) - TOKENS_PER_IMAGE < empty + 40
    assert 0 < estimate({"source": remote}) - TOKENS_PER_IMAGE < empty + 40
    assert 0 < estimate({"source": paper}) - 2 * TOKENS_PER_PAGE < empty + 40
    assert estimate(tools=[]) - TOKENS_FOR_TOOLS < empty + 10


async def test_a_caller_asks_for_the_estimate(api: MeterApi, books: Books) -> None:
    payer = await books.payer("ada", USD)
    asked = {"model": "acme/one", "messages": [{"role": "user", "content": "Good day"}]}
    headers = {"x-api-key": payer.plain_key}
    answer = await api.anybody.post(PATH, json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["is_estimate"] is True
    assert 0 < told["input_tokens"] < 100
    assert (await api.credits("ada"))["available"] == "1.00", "it is free"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", "invalid_json"),
        ('{"model": "m"}', "invalid_value"),
        ('{"model": 5, "messages": []}', "invalid_value"),
        ('{"model": "m", "messages": "x"}', "invalid_value"),
    ],
)
async def test_what_is_no_request_is_refused_in_anthropics_shape(
    api: MeterApi, books: Books, body: str, code: str
) -> None:
    payer = await books.payer("ada", USD)
    headers = {"x-api-key": payer.plain_key, "content-type": "application/json"}
    answer = await api.anybody.post(PATH, content=body, headers=headers)
    error = answer.json()
    assert (answer.status_code, error["type"], error["error"]["code"]) == (400, "error", code)


async def test_without_a_key_there_is_no_estimate(api: MeterApi) -> None:
    answer = await api.anybody.post(PATH, json={"model": "m", "messages": []})
    assert answer.status_code == 401
