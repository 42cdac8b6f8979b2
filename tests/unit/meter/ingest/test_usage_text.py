"""Usage objects of providers as counts."""

import pytest

from meter.ingest.usage_text import usage_from_json


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
