"""When the provider is asked about a request, and for how long."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

FIRST_DELAY: Final = timedelta(seconds=3)


PATIENCE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class LookupTerms:
    """`first_delay` is how long a provider needs until it has a record of a generation;
    `patience` how long after its end a request may stay unknown."""

    first_delay: timedelta = FIRST_DELAY
    patience: timedelta = PATIENCE
