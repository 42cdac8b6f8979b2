"""Google's dialect: the Gemini API at its endpoint in the shape of OpenAI."""

from typing import Final

from meter.providers.direct.model_list import REFUSALS, checking_by, listing_by
from meter.providers.provider import Dialect, DialectName
from meter.settlement.billing_terms import BillingTerms

RESOURCE: Final = "models/"
# Google answers a key that it does not know with 400.
_REFUSALS: Final = {400: "the key is not valid", **REFUSALS}


def read_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a name without the kind of resource before it, as requests and OpenRouter have it."""
    plain = name.removeprefix(RESOURCE)
    return plain, (plain,)


DIALECT: Final = Dialect(
    name=DialectName.GOOGLE,
    # "If your request fails with a 400 or 500 error, you won't be charged for the tokens used."
    billing=BillingTerms(names_costs=False, refusals_are_free=True, has_records=False),
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    model_prefix="google/",
    needs_key=True,
    asks_for_usage=True,
    takes_openrouter_members=False,
    unbilled_statuses=frozenset({429, 503}),
    fetch_catalogue=listing_by(read_name, _REFUSALS),
    check_key=checking_by(_REFUSALS),
)
