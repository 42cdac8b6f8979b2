"""The terms by which a provider bills, as far as they decide what a log may settle."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """The documented billing of one provider; the defaults are those of OpenRouter.

    - `names_costs`: each usage object names its cost. A usage object without a cost that can be
      read is then malformed, and is looked up instead of being priced by the catalogue.
    - `refusals_are_free`: a reply that is a refusal, an error or empty, without the id of a
      generation, is not billed. Where False, such a reply is weak evidence like any other error.
    """

    names_costs: bool = True
    refusals_are_free: bool = True
