"""The phases of a decision, and the port through which `decide.py` reports them."""

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from authz.policy import RoutePolicy
from meter.identity.principal import Presented, Principal
from meter.pricing.prices import Demand, Estimate, Model

if TYPE_CHECKING:
    from authz.routing.choice import Choice


class Phase(IntEnum):
    """The phases of a decision, in order. `decide.py` says what each one does."""

    ROUTE = 1
    AUTHENTICATE = 2
    ADMIT = 3
    BODY = 4
    AUTHORIZE = 5
    ESTIMATE = 6
    LIMITS = 7
    HOLD = 8
    DEADLINE = 9


class Trace:
    """Learns the progress of one decision. This class ignores it; subclasses override methods.

    Each `note_` method is called when its fact is known and good: after a refusal, what was not
    noted is not known. Decisions for real requests run with NO_TRACE, so every call must stay as
    cheap as a call can be: arguments are values that the decision has anyway.
    """

    __slots__ = ()

    def begin(self, phase: Phase) -> None:
        """Note that a phase begins. The last one that began is the one that ended the decision."""

    def note_policy(self, policy: RoutePolicy) -> None:
        """Note the policy of the route."""

    def note_endpoint(self, endpoint: str) -> None:
        """Note the endpoint of a metered request."""

    def note_presented(self, presented: Presented) -> None:
        """Note the form in which the principal is going to be looked up."""

    def note_principal(self, principal: Principal) -> None:
        """Note the principal that was found."""

    def note_models(self, models: Sequence[Model]) -> None:
        """Note the models that may serve the request."""

    def note_choice(self, choice: "Choice") -> None:
        """Note the provider, where it is not OpenRouter by the default path."""

    def note_estimate(self, demand: Demand, estimate: Estimate) -> None:
        """Note the upper bound of usage, and of its cost."""


NO_TRACE: Final = Trace()
