"""A strong verdict needs strong evidence, over every combination of what a log can say (R4, R8)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Final
from uuid import UUID

from meter.holds.hold import Hold, HoldEnding, HoldState
from meter.pricing.prices import Price
from meter.settlement.billing_terms import BillingTerms
from meter.settlement.outcome import Released, Settled, Unknown, decide_outcome
from meter.settlement.policy import PolicyVerdict, choose_rule
from meter.usage.usage import Observation, ReportedUsage, Source, TokenCounts
from tests.books import observed

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
PAID: Final = Price(1, "m", NOW, 150_000, 600_000)
FREE: Final = Price(1, "m", NOW, 0, 0)
HOLD: Final = Hold(
    UUID(int=7), NOW, "a", "c", "m", "chat_completions", 1, 0, 10**9, 0, 100, HoldState.OPEN
)
STATUSES: Final = (None, 200, 204, 307, 408, 429, 499, 500, 503, 504, 524, 529)
FLAGS: Final = ("", "DC", "UC", "UPE", "UT", "UF", "UC,DC")
BYTES: Final = (15, 16, 16_384, 16_385)
USAGES: Final = {
    "none": None,
    "zeros": ReportedUsage(TokenCounts(0, 0), Decimal(0)),
    "zeros without a cost": ReportedUsage(TokenCounts(0, 0), None),
    "empty reply": ReportedUsage(TokenCounts(10, 0), Decimal(0)),
    "cost of 0": ReportedUsage(TokenCounts(10, 20), Decimal(0)),
    "no cost": ReportedUsage(TokenCounts(10, 20), None),
    "own key": ReportedUsage(TokenCounts(10, 20), Decimal(0), Decimal("0.01"), is_byok=True),
    "cost": ReportedUsage(TokenCounts(10, 20), Decimal("0.001")),
}
NAMES: Final = {id(usage): name for name, usage in USAGES.items()}


def everything() -> Iterator[Observation]:
    """Every combination of what a log can say of a request."""
    base = observed(HOLD.id, usage=None)
    for status, flags, size, usage in product(STATUSES, FLAGS, BYTES, USAGES.values()):
        for generation_id, has_error, first_ms, upstream_ms in product(
            (None, "gen-1"), (False, True), (None, 30), (None, 900, 5_000)
        ):
            # What Envoy answers by itself is an error; what it passes on has its first byte.
            code = status or (200 if first_ms is not None else 503)
            yield replace(
                base,
                provider_status=status,
                status_code=code,
                response_flags=flags,
                response_bytes=size,
                usage=usage,
                generation_id=generation_id,
                has_error=has_error,
                time_to_first_byte_ms=first_ms,
                upstream_ms=upstream_ms,
                reached_provider=upstream_ms is not None,
            )


ALL: Final = tuple(everything())
UNREACHED_FLAGS: Final = {"UF"}
GAVE_UP: Final = {408, 499, 504, 524}


def is_unsent(seen: Observation) -> bool:
    return not seen.reached_provider or bool(UNREACHED_FLAGS & set(seen.response_flags.split(",")))


def test_a_log_settles_only_by_a_cost_in_a_reply_that_is_no_error() -> None:
    settled = Counter[str]()
    for seen, price in product(ALL, (PAID, FREE)):
        outcome = decide_outcome(seen, HOLD, price)
        if not isinstance(outcome, Settled):
            continue
        name = NAMES[id(seen.usage)]
        settled[name] += 1
        assert seen.provider_status in (None, 200, 204), seen
        assert not seen.has_error, seen
        assert not is_unsent(seen), seen
        assert seen.usage is not None
        assert seen.usage.cost_usd is not None
        if outcome.cost_picos == 0:
            assert price.is_free, seen
    assert set(settled) == {"cost", "own key", "cost of 0", "empty reply"}


def test_a_log_releases_only_where_nothing_can_have_been_generated() -> None:
    endings = Counter[HoldEnding]()
    for seen in ALL:
        outcome = decide_outcome(seen, HOLD, PAID)
        if not isinstance(outcome, Released):
            continue
        endings[outcome.ending] += 1
        assert seen.generation_id is None, seen
        assert NAMES[id(seen.usage)] in ("none", "zeros", "zeros without a cost"), seen
        if outcome.ending is HoldEnding.NEVER_REACHED:
            assert is_unsent(seen), seen
            assert seen.provider_status is None, seen
            assert seen.time_to_first_byte_ms is None, seen
            continue
        status = seen.provider_status
        if status is None or status < 300:
            has_begun = status is not None or seen.time_to_first_byte_ms is not None
            is_error = seen.has_error and has_begun and seen.response_bytes <= 16_384
            is_empty = seen.response_bytes < 16 and not seen.response_flags
            assert is_error or (is_empty and status is not None), seen
        else:
            assert status < 500, seen
            assert status not in GAVE_UP, seen
    assert endings.keys() == {HoldEnding.NEVER_REACHED, HoldEnding.REFUSED_UPSTREAM}


def test_without_terms_that_say_so_no_answer_is_taken_for_unbilled() -> None:
    strict = BillingTerms(refusals_are_free=False)
    for seen in ALL:
        outcome = decide_outcome(seen, HOLD, PAID, strict)
        if isinstance(outcome, Released):
            assert outcome.ending is HoldEnding.NEVER_REACHED, seen


def test_what_the_policy_lets_go_has_an_error_or_no_byte_to_show() -> None:
    voided = 0
    for seen in ALL:
        rule = choose_rule(seen, seen.generation_id, has_reports=False)
        if rule.verdict is not PolicyVerdict.VOID:
            continue
        voided += 1
        assert seen.usage is None, seen
        assert seen.provider_status not in GAVE_UP, seen
        if seen.provider_status is None:
            is_unanswered = seen.time_to_first_byte_ms is None
            assert seen.upstream_ms == 900 if is_unanswered else seen.has_error, seen
        elif seen.provider_status < 300:
            assert seen.has_error or seen.response_bytes < 16, seen
    assert voided


def test_the_two_logs_are_believed_alike_and_the_record_more() -> None:
    for seen in ALL:
        from_file = replace(seen, source=Source.FILE)
        assert decide_outcome(seen, HOLD, PAID) == decide_outcome(from_file, HOLD, PAID)
        if seen.usage is not None and seen.usage.cost_usd is not None:
            record = replace(seen, source=Source.LOOKUP)
            assert isinstance(decide_outcome(record, HOLD, PAID), Settled)


def test_less_is_said_with_certainty_than_is_left_to_the_record() -> None:
    """A count, so that a change of the rules shows in a review."""
    kinds = Counter(type(decide_outcome(seen, HOLD, PAID)) for seen in ALL)
    assert kinds[Unknown] > kinds[Settled] + kinds[Released]
