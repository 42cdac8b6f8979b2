"""Finds what a provider's listing says that is not believed at first sight. Pure.

A broken listing looks like any other. Believing one that lost most models refuses their requests
with 404; believing a price that lost three digits makes holds too small. The old state is safe in
both cases: no endpoint serves that is dearer than the hold assumes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from meter.pricing.prices import Model, OfferedModel

# A listing that loses a larger share of the offered models is doubted as a whole.
MAX_LOST_PERCENT: Final = 20
# Of so few models, one or two more or less are no sign of a fault.
LEAST_MODELS: Final = 10
# A price that becomes more than so many times dearer or cheaper is doubted.
MAX_PRICE_FACTOR: Final = 10
# An equal finding is believed when it is seen again after this time.
SECOND_LOOK_AFTER: Final = timedelta(hours=1)

WHOLE_LISTING: Final = ""
_EXAMPLES: Final = 3
# Between nothing and something there is no factor: only these make a free model a paid one.
_NEVER_FROM_ZERO: Final = frozenset({"prompt_picos", "completion_picos"})
_COMPARED: Final = (
    *("prompt_picos", "completion_picos", "request_picos", "image_picos", "web_search_picos"),
    *("reasoning_picos", "cache_read_picos", "cache_write_picos", "cache_write_1h_picos"),
    *("image_token_picos", "image_output_picos", "audio_picos", "audio_output_picos"),
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A finding about a model, or about the whole listing; equal findings are equal doubts."""

    subject: str
    finding: str
    explanation: str


def find_doubts(known: Mapping[str, Model], offered: Sequence[OfferedModel]) -> list[Doubt]:
    """Return the doubts about a listing; `known` are the models that are offered until now."""
    doubts = []
    lost = sorted(known.keys() - {model.id for model in offered})
    if len(known) >= LEAST_MODELS and 100 * len(lost) > MAX_LOST_PERCENT * len(known):
        finding = hashlib.sha256("\n".join(lost).encode()).hexdigest()
        examples = ", ".join(lost[:_EXAMPLES])
        explanation = f"{len(lost)} of {len(known)} models are no longer offered: {examples}, ..."
        doubts.append(Doubt(WHOLE_LISTING, finding, explanation))
    for model in offered:
        old = known.get(model.id)
        changed = [] if old is None else _large_changes(old, model)
        if changed:
            doubts.append(Doubt(model.id, ";".join(changed), "; ".join(changed[:_EXAMPLES])))
    return doubts


def _large_changes(old: Model, new: OfferedModel) -> list[str]:
    changes = []
    for name in _COMPARED:
        before, after = getattr(old.price, name) or 0, getattr(new, name) or 0
        if before == after or (0 in (before, after) and name not in _NEVER_FROM_ZERO):
            continue
        if max(before, after) > MAX_PRICE_FACTOR * min(before, after):
            what = name.removesuffix("_picos")
            changes.append(f"{what}: from {before} to {after} pico-dollars")
    return changes
