"""OpenAI's dialect."""

import re
from typing import Final

from meter.providers.direct.model_list import checking_by, listing_by
from meter.providers.provider import Dialect, DialectName
from meter.settlement.billing_terms import BillingTerms

_DATE: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def read_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a name, and the names that OpenRouter may have: with its date, then without."""
    return name, tuple(dict.fromkeys((name, _DATE.sub("", name))))


DIALECT: Final = Dialect(
    name=DialectName.OPENAI,
    billing=BillingTerms(names_costs=False, refusals_are_free=True, has_records=False),
    base_url="https://api.openai.com/v1",
    model_prefix="openai/",
    needs_key=True,
    asks_for_usage=True,
    takes_openrouter_members=False,
    unbilled_statuses=frozenset({429, 503}),
    fetch_catalogue=listing_by(read_name),
    check_key=checking_by(),
)
