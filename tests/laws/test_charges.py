"""Rules for every price, request and reply: estimates bound charges, books balance."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from meter.holds.hold import Hold, HoldState
from meter.money import DECIMAL_PLACES, add_markup
from meter.pricing.prices import Demand, Estimate, Model, Price, catalogue_cost, estimate
from meter.settlement.billing_terms import BillingTerms
from meter.settlement.booking import book_settlement
from meter.settlement.changes import HoldOnRecord, changes_from_observations
from meter.settlement.outcome import PriceSource, Settled, decide_outcome, ordinary_cost
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts
from tests.books import NEVER_REACHED, observed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLD_ID = UUID(int=7)
PER_TOKEN = st.integers(0, 10**9)
FLAT = st.integers(0, 10**11)
MARKUPS = st.integers(0, 1_000_000)
ENDINGS: dict[str, dict[str, object]] = {
    "settled": {},
    "released": NEVER_REACHED,
    "unknown": {"usage": None},
    "lost": {},
}


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Any price, with and without the optional parts."""
    return Price(
        id=1,
        model_id="m",
        effective_from=NOW,
        prompt_picos=draw(PER_TOKEN),
        completion_picos=draw(PER_TOKEN),
        request_picos=draw(FLAT),
        image_picos=draw(FLAT),
        web_search_picos=draw(FLAT),
        reasoning_picos=draw(PER_TOKEN),
        cache_read_picos=draw(st.none() | PER_TOKEN),
        cache_write_picos=draw(st.none() | PER_TOKEN),
    )


@st.composite
def usages(draw: st.DrawFn) -> TokenCounts:
    """Any consistent token counts: details are parts of their totals."""
    prompt = draw(st.integers(0, 100_000))
    completion = draw(st.integers(0, 100_000))
    cached = draw(st.integers(0, prompt))
    return TokenCounts(
        prompt=prompt,
        completion=completion,
        cached=cached,
        cache_write=draw(st.integers(0, prompt - cached)),
        reasoning=draw(st.integers(0, completion)),
    )


def model(price: Price) -> Model:
    return Model("m", "m", context_length=100_000, max_completion_tokens=100_000, price=price)


def held(bound: Estimate, tokens: int) -> int:
    return bound.fixed_picos + bound.per_token_picos * tokens


def hold(amount_picos: int, markup_bps: int, endpoint: str = "chat_completions") -> Hold:
    return Hold(
        id=HOLD_ID,
        placed_at=NOW,
        account_id="alice",
        credential_id="c",
        model_id="m",
        endpoint=endpoint,
        price_id=1,
        markup_bps=markup_bps,
        amount_picos=amount_picos,
        flat_cost_picos=0,
        max_tokens=1_000,
        state=HoldState.OPEN,
    )


@given(
    prices(), usages(), MARKUPS, st.integers(1, 4), st.integers(0, 5), st.integers(0, 5), st.data()
)
def test_no_reply_within_its_limits_costs_more_than_its_estimate(
    price: Price,
    used: TokenCounts,
    markup_bps: int,
    choices: int,
    images: int,
    searches: int,
    data: st.DataObject,
) -> None:
    limit = data.draw(st.integers(0, 100_000))
    assume(used.completion <= limit * choices)
    # Without a completion token it is no usage that a log may settle.
    assume(used.completion > 0)
    demand = Demand(
        prompt_tokens=used.prompt,
        completion_tokens=limit,
        choices=choices,
        images=images,
        web_searches=searches,
    )
    bound = estimate(demand, [model(price)], markup_bps, floor_tokens=16)
    cost = catalogue_cost(used, price, bound.flat_cost_picos)
    ending = observed(HOLD_ID, usage=ReportedUsage(used, cost_usd=None))
    bounded = hold(held(bound, limit), markup_bps)
    bounded = replace(bounded, flat_cost_picos=bound.flat_cost_picos)
    charged = decide_outcome(ending, bounded, price, BillingTerms(names_costs=False))
    assert isinstance(charged, Settled)
    assert charged.cost_picos == cost
    assert book_settlement(ending, bounded, charged).excess_picos == 0


@given(prices(), prices(), usages(), MARKUPS)
def test_an_estimate_covers_every_fallback(
    asked: Price, fallback: Price, used: TokenCounts, markup_bps: int
) -> None:
    demand = Demand(prompt_tokens=used.prompt, completion_tokens=used.completion)
    together = estimate(demand, [model(asked), model(fallback)], markup_bps, 16)
    for price in (asked, fallback):
        alone = estimate(demand, [model(price)], markup_bps, 16)
        assert held(together, used.completion) >= held(alone, used.completion)


@given(prices(), usages(), MARKUPS, st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_settlement_charges_exactly_cost_and_markup_and_balances(
    price: Price, used: TokenCounts, markup_bps: int, cost_picos: int, held_picos: int
) -> None:
    assume(cost_picos > 0)
    cost = Decimal(cost_picos).scaleb(-DECIMAL_PLACES)
    ending = observed(HOLD_ID, usage=ReportedUsage(used, cost_usd=cost))
    outcome = decide_outcome(ending, hold(held_picos, markup_bps), price)
    assert isinstance(outcome, Settled)
    assert outcome.price_source is PriceSource.PROVIDER
    assert outcome.cost_picos == cost_picos
    booking = book_settlement(ending, hold(held_picos, markup_bps), outcome)
    entries = [entry for posting in booking.postings for entry in posting.entries]
    by_account = {
        name: sum(entry.amount_picos for entry in entries if entry.ledger_account == name)
        for name in ("customer", "provider", "revenue")
    }
    assert by_account["customer"] == -outcome.charge_picos
    assert by_account["provider"] == cost_picos
    assert sum(by_account.values()) == 0
    assert booking.charge_picos == outcome.charge_picos
    assert booking.excess_picos == max(0, outcome.charge_picos - held_picos)


@given(st.lists(st.sampled_from(["settled", "released", "unknown", "lost"]), max_size=30))
def test_a_plan_moves_exactly_what_it_ends(kinds: list[str]) -> None:
    price = Price(1, "m", NOW, 100, 400)
    endings: list[Observation] = []
    records: dict[UUID, HoldOnRecord] = {}
    for number, kind in enumerate(kinds):
        hold_id = UUID(int=number + 1)
        endings.append(observed(hold_id, "0.000000005", **ENDINGS[kind]))
        if kind != "lost":
            live = replace(hold(9_000, 0), id=hold_id)
            records[hold_id] = HoldOnRecord(live, price, None)
    plan = changes_from_observations(endings, records)
    states = [ending.state for ending in plan.endings]
    released = states.count(HoldState.RELEASED)
    assert states.count(HoldState.SETTLED) == len(plan.bookings)
    found = (len(plan.bookings), released, len(plan.unknown), len(plan.conflicts))
    assert found == tuple(kinds.count(k) for k in ("settled", "released", "unknown", "lost"))
    ended = found[0] + found[1]
    move = plan.moves.get("alice")
    assert (0 if move is None else move.freed_picos) == 9_000 * ended
    assert (0 if move is None else move.charge_picos) == 5_000 * found[0]


@given(
    prices(),
    usages(),
    MARKUPS,
    st.none() | st.decimals("-1", "100", places=DECIMAL_PLACES + 2),
    st.sampled_from(list(Source)),
    st.sampled_from([200, 204, 302, 404, 503, None]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "UF", "DC", "URX"]),
)
def test_an_ordinary_ending_is_what_any_hold_decides(
    price: Price,
    used: TokenCounts,
    markup_bps: int,
    cost_usd: Decimal | None,
    source: Source,
    status: int | None,
    has_error: bool,
    is_byok: bool,
    flags: str,
) -> None:
    seen = replace(
        observed(HOLD_ID, source=source, provider_status=status, response_flags=flags),
        usage=ReportedUsage(used, cost_usd, Decimal("0.001") if is_byok else None, is_byok),
        has_error=has_error,
    )
    cost_picos = ordinary_cost(seen)
    outcome = decide_outcome(seen, hold(0, markup_bps), price)
    if cost_picos is not None:
        charge_picos = add_markup(cost_picos, markup_bps)
        assert outcome == Settled(used, cost_picos, charge_picos, PriceSource.PROVIDER)
    elif source in (Source.STREAM, Source.FILE) and cost_usd is not None and cost_usd > 0:
        assert not isinstance(outcome, Settled)
