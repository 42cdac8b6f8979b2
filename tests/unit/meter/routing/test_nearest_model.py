"""A wrong name of a model leads to the right one, or to none."""

import pytest

from meter.routing.nearest_model import NearestModels

NAMES = (
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "openai/gpt-4o-mini:free",
    "anthropic/claude-3.5-sonnet",
    "anthropic/claude-sonnet-4.5",
    "google/gemini-2.5-flash",
    "fast",
)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openai/gpt4o-mini", "openai/gpt-4o-mini"),
        ("OpenAI/GPT-4o", "openai/gpt-4o"),
        ("openai/gpt-4o-mni", "openai/gpt-4o-mini"),
        ("claude-3-5-sonnet-20241022", "anthropic/claude-3.5-sonnet"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4.5"),
        ("gemini-2.5-flsh", "google/gemini-2.5-flash"),
        ("Fast", "fast"),
        ("mistral/unheard-of", None),
        ("", None),
        ("é" * 10_000, None),
        ("openai/gpt-4o-mini" * 1_000, None),
    ],
)
def test_the_nearest_name_is_found(wrong: str, meant: str | None) -> None:
    assert NearestModels().find(wrong, NAMES, lambda _: True) == meant


def test_only_what_may_be_used_is_named_and_a_new_catalogue_is_read() -> None:
    nearest = NearestModels()
    assert nearest.find("gpt-4o-mini", NAMES, lambda name: ":" in name) == "openai/gpt-4o-mini:free"
    assert nearest.find("gpt-4o-mini", NAMES, lambda _: False) is None
    other = ("openai/gpt-4o-micro", *NAMES[2:])
    assert nearest.find("gpt-4o-micr", other, lambda _: True) == "openai/gpt-4o-micro"
    assert nearest.find("openai/gpt-4o", other, lambda _: True) not in NAMES[:2]
