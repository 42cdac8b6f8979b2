"""OpenRouter as a provider."""

from typing import Final

from meter.providers.openrouter import BASE_URL, ID
from meter.providers.openrouter.broadcast import read_reports
from meter.providers.openrouter.catalogue import fetch_catalogue
from meter.providers.openrouter.generations import fetch_generation
from meter.providers.openrouter.key_usage import check_key, fetch_key_usage
from meter.providers.provider import Provider
from meter.settlement.billing_terms import BillingTerms

OPENROUTER: Final = Provider(
    id=ID,
    base_url=BASE_URL,
    # "Zero Completion Insurance" and "Errors": no charge for an error or an empty reply.
    billing=BillingTerms(names_costs=True, refusals_are_free=True),
    fetch_catalogue=fetch_catalogue,
    fetch_generation=fetch_generation,
    fetch_total_usd=fetch_key_usage,
    check_key=check_key,
    read_reports=read_reports,
)
