"""The amount that a prompt counts against limits of tokens, and the refusals that state it."""

import pytest
from prometheus_client import CollectorRegistry

from authz.decision import Deny
from authz.limits.counting import Limits
from authz.metrics import Metrics
from meter.clock import ManualClock
from meter.identity.principal import Principal
from meter.limits.limits import (
    AppliesTo,
    CountedPer,
    LimitKind,
    LimitRule,
    LimitWindow,
    Rates,
)
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand
from tests.fakes import EPOCH, FakeLimiter, FakeLimitRules, model

BODY_BYTES = 400


def caller(tokens_per_minute: int) -> Principal:
    """A key with a limit of tokens and no other."""
    return Principal(
        credential_id="credential",
        account_id="account",
        markup_bps=0,
        key_rates=Rates(None, tokens_per_minute),
    )


@pytest.mark.parametrize(("room", "is_admitted"), [(100, True), (99, False)])
async def test_a_prompt_counts_a_quarter_of_its_bytes_and_no_overhead(
    room: int, is_admitted: bool
) -> None:
    limiter = FakeLimiter(ManualClock(EPOCH))
    limits = Limits(limiter, FakeLimitRules(), Metrics(CollectorRegistry()))
    demand = Demand(BODY_BYTES + PROMPT_OVERHEAD_TOKENS, completion_tokens=5)
    answer = await limits.take(caller(room), [model()], demand)
    assert [t.amount for t in limiter.uses if t.limit.kind is LimitKind.TOKENS] == [100]
    assert isinstance(answer, Deny) is not is_admitted
    if isinstance(answer, Deny):
        assert "less than this prompt, which counts as 100." in answer.message
        assert "used up" not in answer.message


async def test_rules_count_requests_of_a_day_and_a_month_too() -> None:
    limiter = FakeLimiter(ManualClock(EPOCH))
    rules = FakeLimitRules(
        LimitRule(
            "calendar",
            AppliesTo.EVERYONE,
            None,
            CountedPer.ACCOUNT,
            None,
            None,
            None,
            False,
            requests_per_day=2,
            requests_per_month=3,
        )
    )
    limits = Limits(limiter, rules, Metrics(CollectorRegistry()))
    demand = Demand(BODY_BYTES + PROMPT_OVERHEAD_TOKENS, completion_tokens=5)
    await limits.take(caller(1_000), [model()], demand)
    counted = [one.limit for one in limiter.uses if one.limit.bucket.startswith("rule:")]
    assert {(one.bucket, one.window, one.most) for one in counted} == {
        ("rule:calendar:account:account", LimitWindow.DAY, 2),
        ("rule:calendar:account:account", LimitWindow.MONTH, 3),
    }
