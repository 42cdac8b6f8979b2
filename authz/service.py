"""Answers checks: decides within a deadline, counts and logs; translates Envoy's messages.

Nothing here knows of gRPC or HTTP; a `Transport` carries the bytes, and `http_form` decides on
requests. A failure is answered with 503: a request without a decision never passes.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from authz.deadlines import Deadlines
from authz.decide import HARMLESS_PARAMETERS, Decider
from authz.decision import (
    Allow,
    AllowUnmetered,
    Decision,
    Deny,
    NeedsWholeBody,
    OutageKind,
    Reason,
    deny,
)
from authz.endpoints.table import error_shape
from authz.metrics import Metrics
from authz.request import AuthRequest
from authz.transports import wire
from authz.transports.transport import Answer
from meter.clock import Clock
from meter.errors import BrokenInvariant, Outage, Overloaded, ProviderUnavailable
from meter.process.crash_points import CrashPoints, NoCrashPoints

# A flood of refusals must not become a flood of log lines; the metrics count every one.
MAX_DENIALS_LOGGED_PER_S: Final = 50
MAX_REQUEST_ID_CHARS: Final = 64
# What may stand in a query costs nothing, and is no provider's business.
_WITHOUT_PARAMETERS: Final = wire.without_parameters(HARMLESS_PARAMETERS)

_log = structlog.get_logger(__name__)


class CheckService:
    """Answers checks of every transport."""

    def __init__(
        self,
        decider: Decider,
        clock: Clock,
        metrics: Metrics,
        deadline_after_s: float,
        crash_points: CrashPoints = NoCrashPoints(),  # noqa: B008  # holds nothing
    ) -> None:
        self._decider = decider
        self._crash_points = crash_points
        self._clock = clock
        self._metrics = metrics
        self._deadline_after_s = deadline_after_s
        self._deadlines = Deadlines(deadline_after_s)
        self._denials = _DenialLog(clock)
        # Even a line that is not written would cost more than any phase of a decision.
        self._logs_all = _log.is_enabled_for(logging.DEBUG)

    async def check(self, payload: bytes) -> Answer:
        """Answer one serialised CheckRequest with a serialised CheckResponse.

        `Answer.take_back` releases its hold in the background.

        Cancellation passes through: it means that no one waits for the answer. Raises nothing
        but BrokenInvariant.
        """
        request = wire.from_check(payload)
        verdict = await self.decide(request)
        if isinstance(verdict, Allow):
            answer = wire.from_decision(verdict)
            if request is not None and "?" in request.path:
                answer += _WITHOUT_PARAMETERS
            return Answer(answer, self.undoing(verdict))
        shape = error_shape("" if request is None else request.path)
        if isinstance(verdict, OutageKind):
            return Answer(wire.from_outage(verdict, shape))
        return Answer(wire.from_decision(verdict, shape))

    async def decide(self, request: AuthRequest | None) -> Decision | OutageKind:
        """Decide about a request within the deadline; None is one that cannot be read.

        Counted and logged here, once. Cancellation passes through; raises nothing else but
        BrokenInvariant.
        """
        began_s = self._clock.monotonic_s()
        self._metrics.checks_in_flight.inc()
        try:
            if request is None:
                return self._record_decision(None, deny(Reason.INVALID_CHECK))
            with self._deadlines.watch():
                decision = await self._decider.decide(request, began_s + self._deadline_after_s)
            return self._record_decision(request, decision)
        except (Outage, TimeoutError) as error:
            return self._record_outage(request, outage_kind(error), error)
        except BrokenInvariant:
            # Without an answer the proxy refuses too, and the fault does not look like an outage.
            raise
        except Exception:
            # The outermost handler of a check: a fault in one check neither lets it pass nor stops
            # the others.
            self._metrics.count_decision("outage", "fault")
            _log.exception("check_failed", request_id=_short_id(request))
            return OutageKind.UNAVAILABLE
        finally:
            self._metrics.checks_in_flight.dec()
            self._metrics.check_seconds.observe(self._clock.monotonic_s() - began_s)

    def turn_away(self, error: Outage | TimeoutError) -> OutageKind:
        """Count and log a request that could not be read; return the outage to answer with."""
        return self._record_outage(None, OutageKind.UNAVAILABLE, error)

    def undoing(self, decision: Decision) -> Callable[[], None] | None:
        """Return the function that releases the hold of a decision; None for one without a hold."""
        if not isinstance(decision, Allow):
            return None
        return partial(self._decider.take_back, decision.hold_id)

    def _record_decision(self, request: AuthRequest | None, decision: Decision) -> Decision:
        if isinstance(decision, Allow):
            self._crash_points.reach("authz.before_answer")
            self._metrics.count_decision("allow", "ok")
            if self._logs_all:
                hold_id = decision.hold_id.hex
                _log.debug("check_allowed", request_id=_short_id(request), hold_id=hold_id)
        elif isinstance(decision, AllowUnmetered):
            self._metrics.count_decision("allow", "unmetered")
        elif isinstance(decision, NeedsWholeBody):
            self._metrics.count_decision("continue", "needs_whole_body")
        else:
            self._metrics.count_decision("deny", decision.reason.value.code)
            self._denials.note(request, decision)
        return decision

    def _record_outage(
        self, request: AuthRequest | None, kind: OutageKind, error: Exception
    ) -> OutageKind:
        self._metrics.count_decision("outage", kind.value.code)
        self._denials.note_outage(request, kind, str(error) or type(error).__name__)
        return kind


def outage_kind(error: Exception) -> OutageKind:
    """Return the outage that clients are told for an exception that ended a decision."""
    if isinstance(error, ProviderUnavailable):
        return OutageKind.PROVIDER_UNAVAILABLE
    return OutageKind.OVERLOADED if isinstance(error, Overloaded) else OutageKind.UNAVAILABLE


class _DenialLog:
    """Logs a line for each refusal or outage, up to MAX_DENIALS_LOGGED_PER_S a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = 0
        self._lines = 0

    def note(self, request: AuthRequest | None, denied: Deny) -> None:
        """Log a refusal."""
        if self._has_room():
            _log.info(
                "check_denied",
                request_id=_short_id(request),
                code=denied.reason.value.code,
                status=denied.reason.value.status,
                param=denied.param,
            )

    def note_outage(self, request: AuthRequest | None, kind: OutageKind, reason: str) -> None:
        """Log an outage, with the message of the exception."""
        if self._has_room():
            code = kind.value.code
            _log.warning("check_undecided", request_id=_short_id(request), code=code, reason=reason)

    def _has_room(self) -> bool:
        second = int(self._clock.monotonic_s())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= MAX_DENIALS_LOGGED_PER_S


def _short_id(request: AuthRequest | None) -> str | None:
    request_id = None if request is None else request.request_id
    return None if request_id is None else request_id[:MAX_REQUEST_ID_CHARS]
