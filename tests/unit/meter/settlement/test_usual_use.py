"""A guess follows what such requests usually cost, and stays within the hold."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.holds.hold import Hold, HoldState
from meter.money import add_markup
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Price, catalogue_cost
from meter.settlement.outcome import PriceSource, Settled
from meter.settlement.policy import PolicyDecision, PolicyVerdict, Rule
from meter.settlement.usual_use import (
    ASSUMED_COMPLETION_TOKENS,
    MOST_BYTES_PER_EVENT,
    UsualUse,
    guess,
    use_of,
)
from meter.usage.usage import ReportedUsage, TokenCounts
from tests.books import observed
from tests.fakes import price

PRICE = price()
HOLD_ID = UUID(int=1)


def hold_for(prompt_bytes: int, max_tokens: int, markup_bps: int = 0, at: Price = PRICE) -> Hold:
    """A hold as the decision estimates it: each byte of the prompt a token."""
    prompt_picos = (prompt_bytes + PROMPT_OVERHEAD_TOKENS) * at.dearest_prompt_picos
    reply_picos = max_tokens * at.dearest_completion_picos
    return Hold(
        id=HOLD_ID,
        placed_at=datetime(2030, 1, 1, tzinfo=UTC),
        account_id="ada",
        credential_id="key",
        model_id=at.model_id,
        endpoint="chat_completions",
        price_id=at.id,
        markup_bps=markup_bps,
        amount_picos=add_markup(prompt_picos, markup_bps) + add_markup(reply_picos, markup_bps),
        flat_cost_picos=0,
        max_tokens=max_tokens,
        state=HoldState.UNKNOWN,
    )


def settled(prompt_tokens: int, completion_tokens: int) -> Settled:
    """A settled request at the listed price."""
    cost_picos = prompt_tokens * PRICE.prompt_picos + completion_tokens * PRICE.completion_picos
    tokens = TokenCounts(prompt_tokens, completion_tokens)
    return Settled(tokens, cost_picos, cost_picos, PriceSource.PROVIDER)


def usual_of(*requests: tuple[int, int, int]) -> UsualUse:
    """The use of requests: bytes of the prompt, its tokens, tokens of the reply."""
    uses = [
        use_of(hold_for(prompt_bytes, 10_000), PRICE, settled(prompt_tokens, completion_tokens))
        for prompt_bytes, prompt_tokens, completion_tokens in requests
    ]
    total = uses[0]
    for use in uses[1:]:
        total = total.plus(use)
    return total


def test_a_guess_is_the_usual_reply_after_this_prompt() -> None:
    usual = usual_of((400, 100, 20), (4_000, 1_000, 60))
    found = guess(hold_for(40_000, 10_000), PRICE, usual, 0)
    assert found.tokens == TokenCounts(prompt=10_000, completion=40)
    assert found.cost_picos == settled(10_000, 40).cost_picos
    assert found.price_source is PriceSource.ESTIMATE
    longest = guess(hold_for(400, 16), PRICE, usual, 0)
    assert longest.tokens.completion == 16, "the request allowed no more"


def test_without_a_statistic_a_guess_is_assumed() -> None:
    found = guess(hold_for(4_000, 10_000), PRICE, None, 0)
    assert found.tokens == TokenCounts(1_000, ASSUMED_COMPLETION_TOKENS)
    assert guess(hold_for(4_000, 0), PRICE, None, 0).tokens == TokenCounts(1_000, 0)


def test_a_long_stream_that_was_seen_costs_no_less_than_its_bytes_show() -> None:
    usual = usual_of((400, 100, 20))
    seen = 900 * MOST_BYTES_PER_EVENT
    assert guess(hold_for(400, 10_000), PRICE, usual, seen).tokens.completion == 900
    assert guess(hold_for(400, 500), PRICE, usual, seen).tokens.completion == 500


def test_tokens_that_a_log_named_are_priced_within_the_hold() -> None:
    # As a stream of Messages tells them: all but the cost.
    seen = observed(HOLD_ID, usage=ReportedUsage(TokenCounts(100, 40, cached=60), None))
    decision = PolicyDecision(HOLD_ID, PolicyVerdict.CHARGE, Rule.NO_RECORD, seen)
    tokens = decision.seen_tokens
    assert tokens == TokenCounts(100, 40, cached=60)
    usual = usual_of((400, 100, 20))
    found = guess(hold_for(400, 10_000, 500), PRICE, usual, 0, tokens)
    cost_picos = catalogue_cost(tokens, PRICE, 0)
    assert found == Settled(tokens, cost_picos, add_markup(cost_picos, 500), PriceSource.CATALOGUE)
    small = hold_for(1, 1)
    dear = guess(small, PRICE, usual, 0, TokenCounts(10**6, 10**6))
    assert dear.charge_picos == small.amount_picos


@pytest.mark.parametrize(
    "seen",
    [
        {"usage": ReportedUsage(TokenCounts(100, 40), Decimal(0))},
        {"usage": ReportedUsage(TokenCounts(100, 0), None)},
        {"usage": ReportedUsage(TokenCounts(0, 40), None)},
        {"usage": ReportedUsage(TokenCounts(100, 40), None), "has_error": True},
        {"usage": ReportedUsage(TokenCounts(100, 40), None), "provider_status": 502},
        {"usage": None},
    ],
)
def test_usage_that_is_doubted_is_not_priced(seen: dict[str, Any]) -> None:
    decision = PolicyDecision(
        HOLD_ID, PolicyVerdict.CHARGE, Rule.NO_RECORD, observed(HOLD_ID, **seen)
    )
    assert decision.seen_tokens is None


def test_the_more_expensive_provider_shows_in_the_guess() -> None:
    dearer = replace(settled(100, 20), cost_picos=2 * settled(100, 20).cost_picos)
    hold = hold_for(400, 10_000)
    usual = use_of(hold, PRICE, dearer)
    assert guess(hold, PRICE, usual, 0).cost_picos == dearer.cost_picos


@pytest.mark.parametrize("is_known", [True, False])
@given(
    prompt_bytes=st.integers(0, 10**6),
    max_tokens=st.integers(0, 10**5),
    markup_bps=st.integers(0, 50_000),
    usual=st.builds(
        UsualUse,
        st.integers(1, 10**4),
        *(st.integers(0, 10**15) for _ in range(2)),
        st.integers(0, 10**9),
    ),
    streamed_bytes=st.integers(0, 10**9),
)
def test_a_guess_never_exceeds_its_hold(
    is_known: bool,
    prompt_bytes: int,
    max_tokens: int,
    markup_bps: int,
    usual: UsualUse,
    streamed_bytes: int,
) -> None:
    hold = hold_for(prompt_bytes, max_tokens, markup_bps)
    found = guess(hold, PRICE, usual if is_known else None, streamed_bytes)
    assert 0 <= found.cost_picos <= found.charge_picos <= hold.amount_picos
    assert found.charge_picos == add_markup(found.cost_picos, markup_bps)
    assert 0 <= found.tokens.completion <= max_tokens
