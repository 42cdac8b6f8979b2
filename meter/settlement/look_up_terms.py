"""The times for asking the provider about a request."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from meter.settlement.outcome import UnknownReason

FIRST_DELAY: Final = timedelta(seconds=3)
PATIENCE: Final = timedelta(minutes=15)
# An error is seldom billed: money is not kept aside for longer than an outage of the provider
# would leave its customers without. Some six looks fit into the time.
FAILED_PATIENCE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class LookupTerms:
    """The times for look-ups.

    `first_delay` is the time that a provider needs until it has a record of a generation.
    `patience` is the time that a request may stay unknown after its end; then a policy decides.
    """

    first_delay: timedelta = FIRST_DELAY
    patience: timedelta = PATIENCE

    def patience_for(self, reason: UnknownReason) -> timedelta:
        """Return the time until a policy decides a request that is unknown for this reason."""
        is_short = reason is UnknownReason.FAILED
        return min(FAILED_PATIENCE, self.patience) if is_short else self.patience
