"""The times for asking the provider about a request."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

FIRST_DELAY: Final = timedelta(seconds=3)
PATIENCE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class LookupTerms:
    """The times for look-ups.

    `first_delay` is the time that a provider needs until it has a record of a generation.
    `patience` is the time that a request may stay unknown after its end; then a policy decides.
    """

    first_delay: timedelta = FIRST_DELAY
    patience: timedelta = PATIENCE
