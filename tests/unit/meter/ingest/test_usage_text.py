"""Usage objects of providers as counts."""

from decimal import Decimal

import pytest

from meter.ingest.usage_text import usage_from_json
from meter.usage.usage import ReportedUsage, TokenCounts


@pytest.mark.parametrize(
    ("text", "completion"),
    [
        # Google bills thoughts as output, and has them in the total only.
        ('{"prompt_tokens":5,"completion_tokens":13,"total_tokens":30}', 25),
        ('{"prompt_tokens":5,"completion_tokens":13,"total_tokens":18}', 13),
        # A total that is less, or no count, says nothing.
        ('{"prompt_tokens":5,"completion_tokens":13,"total_tokens":0}', 13),
        ('{"prompt_tokens":5,"completion_tokens":13,"total_tokens":"many"}', 13),
        # A provider that names the cost counts as it likes.
        ('{"prompt_tokens":5,"completion_tokens":13,"total_tokens":30,"cost":0.1}', 13),
        # Embeddings have no completion.
        ('{"prompt_tokens":5,"total_tokens":5}', 0),
    ],
)
def test_the_output_is_what_the_total_has_beside_the_prompt(text: str, completion: int) -> None:
    usage = usage_from_json(text)
    assert usage is not None
    assert (usage.tokens.prompt, usage.tokens.completion) == (5, completion)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        # Responses: the input includes what a cache had.
        (
            '{"input_tokens":50,"output_tokens":7,"total_tokens":57,'
            '"input_tokens_details":{"cached_tokens":20,"cache_write_tokens":5},'
            '"output_tokens_details":{"reasoning_tokens":3}}',
            TokenCounts(50, 7, 20, 5, 3),
        ),
        # Messages: the input is what no cache was read for or written with.
        (
            '{"input_tokens":50,"output_tokens":7,"cache_read_input_tokens":20,'
            '"cache_creation_input_tokens":5,"output_tokens_details":{"thinking_tokens":3}}',
            TokenCounts(75, 7, 20, 5, 3),
        ),
        (
            '{"input_tokens":50,"output_tokens":7,"cache_read_input_tokens":null,'
            '"cache_creation_input_tokens":null,"output_tokens_details":null}',
            TokenCounts(50, 7),
        ),
        # Transcriptions, reranking, images.
        ('{"seconds":9.2,"input_tokens":83,"output_tokens":30}', TokenCounts(83, 30)),
        ('{"seconds":9.2}', TokenCounts(0, 0)),
        ('{"search_units":1,"total_tokens":150}', TokenCounts(150, 0)),
        ('{"search_units":1}', TokenCounts(0, 0)),
        ('{"prompt_tokens":4,"completion_tokens":4175,"total_tokens":4179}', TokenCounts(4, 4175)),
    ],
)
def test_usage_of_every_endpoint_is_read(text: str, counts: TokenCounts) -> None:
    with_cost = text[:-1] + ',"cost":0.00001234567890123}'
    assert usage_from_json(text) == ReportedUsage(counts, None)
    assert usage_from_json(with_cost) == ReportedUsage(counts, Decimal("0.00001234567890123"))


@pytest.mark.parametrize(
    "text",
    [
        '{"input_tokens":"many","output_tokens":7,"cache_read_input_tokens":1}',
        '{"input_tokens":-1,"output_tokens":7}',
        '{"input_tokens":null,"output_tokens":7}',
        '{"output_tokens":7}',
        '{"search_units":1,"prompt_tokens":"many","cost":1}',
        '{"cost":1}',
    ],
)
def test_usage_without_a_count_of_the_prompt_is_none(text: str) -> None:
    assert usage_from_json(text) is None


def test_the_end_of_a_stream_replaces_its_start() -> None:
    start = (
        '{"input_tokens":9,"output_tokens":1,"cache_read_input_tokens":4,'
        '"cache_creation_input_tokens":2}'
    )
    assert usage_from_json('{"output_tokens":30}', start) == ReportedUsage(
        TokenCounts(15, 30, 4, 2), None
    )
    end = '{"input_tokens":8,"output_tokens":30,"cache_read_input_tokens":5,"cost":0.25}'
    assert usage_from_json(end, start) == ReportedUsage(TokenCounts(15, 30, 5, 2), Decimal("0.25"))
    nulls = '{"input_tokens":null,"output_tokens":30,"cache_creation_input_tokens":null}'
    assert usage_from_json(nulls, start) == usage_from_json('{"output_tokens":30}', start)
    # A start that cannot be read takes nothing away.
    assert usage_from_json('{"input_tokens":8,"output_tokens":30}', "{") == ReportedUsage(
        TokenCounts(8, 30), None
    )


@pytest.mark.parametrize("end", ["{}", '{"output_tokens":null}', '{"input_tokens":9}'])
def test_an_end_without_the_reply_is_no_end(end: str) -> None:
    start = '{"input_tokens":9,"output_tokens":1}'
    assert usage_from_json(end, start) is None
