"""The terms by which a provider bills, as far as they decide what a log may settle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """The documented billing of one provider; the defaults are those of OpenRouter.

    - `has_records`: the provider can be asked what a generation cost. Where False, a policy decides
      about a request without usage at once.
    - `names_costs`: each usage object names its cost. A usage object without a cost that can be
      read is then malformed, and is looked up instead of being priced by the catalogue. Where
      False, our price of the provider decides, and a cost in a usage object counts for nothing.
    - `refusals_are_free`: a reply that is a refusal, an error or empty, without the id of a
      generation, is not billed. Where False, such a reply is weak evidence like any other error.
    """

    names_costs: bool = True
    refusals_are_free: bool = True
    has_records: bool = True


# The terms of a provider about which nothing is known.
CAUTIOUS: Final = BillingTerms(names_costs=False, refusals_are_free=False, has_records=False)

# Returns the terms of the provider with an id.
TermsOf = Callable[[str], BillingTerms]


def default_terms(_provider: str) -> BillingTerms:
    """Return the terms of the default provider, whatever the provider."""
    return BillingTerms()
