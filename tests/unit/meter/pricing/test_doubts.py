"""Findings in a listing that are not applied at once."""

from dataclasses import replace
from typing import Any

import pytest

from meter.pricing.doubts import WHOLE_LISTING, find_doubts
from meter.pricing.prices import Model, OfferedModel
from tests.books import offered
from tests.fakes import model


def listed(count: int) -> tuple[dict[str, Model], list[OfferedModel]]:
    """So many models that are offered until now, and a listing that says the same."""
    ids = [f"acme/{place:03}" for place in range(count)]
    known = {name: model(name, prompt_picos=150_000, completion_picos=600_000) for name in ids}
    return known, [offered(name) for name in ids]


def subjects(known: dict[str, Model], listing: list[OfferedModel]) -> list[str]:
    return [doubt.subject for doubt in find_doubts(known, listing)]


@pytest.mark.parametrize(
    ("count", "kept", "expected"),
    [
        (100, 100, []),
        (100, 80, []),
        (100, 79, [WHOLE_LISTING]),
        (100, 1, [WHOLE_LISTING]),
        (9, 1, []),
        (10, 7, [WHOLE_LISTING]),
        (0, 0, []),
    ],
)
def test_the_loss_of_many_models_is_doubted(count: int, kept: int, expected: list[str]) -> None:
    known, listing = listed(count)
    assert subjects(known, listing[:kept]) == expected
    assert subjects(known, [*listing[:kept], offered("acme/new")]) == expected


def test_equal_losses_are_equal_findings() -> None:
    known, listing = listed(20)
    first, again, other = (
        find_doubts(known, part) for part in (listing[:9], listing[:9], listing[1:9])
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("changes", "is_doubted"),
    [
        ({}, False),
        ({"prompt_picos": 1_500_000}, False),
        ({"prompt_picos": 1_500_001}, True),
        ({"prompt_picos": 15_000}, False),
        ({"prompt_picos": 14_999}, True),
        ({"prompt_picos": 0}, True),
        ({"completion_picos": 0}, True),
        ({"cache_read_picos": 10**9}, False),
        ({"web_search_picos": 10**10}, False),
    ],
)
def test_a_price_that_changes_by_a_large_factor_is_doubted(
    changes: dict[str, Any], is_doubted: bool
) -> None:
    known, (asked, *others) = listed(3)
    listing = [replace(asked, **changes), *others]
    assert subjects(known, listing) == ([asked.id] if is_doubted else [])


def test_a_free_model_that_gets_a_price_is_doubted() -> None:
    known = {"acme/free": model("acme/free", prompt_picos=0, completion_picos=0)}
    assert subjects(known, [offered("acme/free")]) == ["acme/free"]


def test_the_explanation_names_the_price() -> None:
    known, (asked,) = listed(1)
    (doubt,) = find_doubts(known, [replace(asked, prompt_picos=15)])
    assert doubt.explanation == "prompt: from 150000 to 15 pico-dollars"
