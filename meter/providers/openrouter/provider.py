"""OpenRouter as a dialect, and as the provider that every installation has."""

from typing import Final

from meter.providers.openrouter import BASE_URL, ID
from meter.providers.openrouter.broadcast import read_reports
from meter.providers.openrouter.catalogue import fetch_catalogue
from meter.providers.openrouter.generations import fetch_generation
from meter.providers.openrouter.key_usage import check_key, fetch_key_usage
from meter.providers.provider import Dialect, DialectName, Provider
from meter.settlement.billing_terms import BillingTerms

DIALECT: Final = Dialect(
    name=DialectName.OPENROUTER,
    # "Zero Completion Insurance" and "Errors": no charge for an error or an empty reply.
    billing=BillingTerms(names_costs=True, refusals_are_free=True),
    base_url=BASE_URL,
    model_prefix="",
    needs_key=True,
    asks_for_usage=False,
    takes_openrouter_members=True,
    unbilled_statuses=frozenset({429, 502, 503}),
    fetch_catalogue=fetch_catalogue,
    check_key=check_key,
    fetch_generation=fetch_generation,
    fetch_total_usd=fetch_key_usage,
    read_reports=read_reports,
)
OPENROUTER: Final = Provider(ID, DIALECT, BASE_URL)
