"""A provider that may serve a request, and the choice among such providers."""

from dataclasses import dataclass

from authz.decision import Edit, Upstream
from meter.pricing.prices import Model
from meter.sealing import SecretText


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that may serve a model.

    `model` has the provider's price and limits, `upstream_name` is the provider's name of the
    model.
    """

    provider: str
    model: Model
    upstream_name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider of a request, or the providers that Envoy asks in turn.

    `models` are for the estimate, the one whose price the hold takes first. `edits` write what the
    chosen provider must read. `upstream` is None for the default path, which has no member of its
    own in the decision.
    """

    candidates: tuple[Candidate, ...]
    models: list[Model]
    key: SecretText
    markup_bps: int
    upstream: Upstream | None = None
    edits: tuple[Edit, ...] = ()
