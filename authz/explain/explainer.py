"""Explaining a decision: the very parts that decide, on a trial of the books that is undone.

No hold is placed, no limit counted, no use noted, no account made, and nobody waits.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from authz.catalogue import CatalogueSnapshot
from authz.decide import Decider, Terms
from authz.decision import AllowUnmetered, Decision, Deny, OutageKind, Reason
from authz.explain.diagnosis import diagnose, show_credential
from authz.explain.explanation import ClientAnswer, Explanation, Verdict
from authz.explain.trace import (
    Examiner,
    Peeking,
    PeekingLimiter,
    Seen,
    TriedHolds,
    WatchedAuthenticator,
    WatchedLimits,
    WatchedPrincipals,
    WatchedVerifier,
)
from authz.explain.words import Explained, report_phases
from authz.headers import RETRY_AFTER_OUTAGE_S, limit_headers, refusal_headers
from authz.metrics import Metrics
from authz.request import AuthRequest
from meter.clock import Clock
from meter.errors import Outage, ProviderUnavailable
from meter.holds.trial import Trial, open_trial
from meter.identity.credential_resolver import Identifier
from meter.identity.keys.key_text import Pepper

if TYPE_CHECKING:
    from meter.postgres.pool import PostgresPool

# An issuer's keys may have to be fetched on the way.
EXPLAIN_TIMEOUT_S: Final = 10.0


class Explainer:
    """Says what a decision would be, and why; one at a time, so that checks have the rest."""

    def __init__(
        self,
        pool: "PostgresPool",
        pepper: Pepper,
        jwts: Examiner,
        snapshot: CatalogueSnapshot,
        limiter: Peeking,
        clock: Clock,
        terms: Terms,
    ) -> None:
        self._pool = pool
        self._pepper = pepper
        self._jwts = jwts
        self._snapshot = snapshot
        self._limiter = limiter
        self._clock = clock
        # Nobody measures how long an explanation takes.
        self._terms = replace(terms, refusal_step_s=0.0)
        self._turn = asyncio.Lock()

    async def explain(self, request: AuthRequest) -> Explanation:
        """Try it out. An outage is part of the explanation."""
        seen = Seen()
        decision: Decision | Exception
        async with self._turn:
            try:
                async with asyncio.timeout(EXPLAIN_TIMEOUT_S), open_trial(self._pool) as trial:
                    decision, diagnosis = await self._try(trial, request, seen)
            except (Outage, TimeoutError) as error:
                decision, diagnosis = error, None
        phases = report_phases(
            Explained(request, decision, seen, diagnosis, self._terms), self._snapshot
        )
        verdict, answer = _verdict(decision), _answer(decision)
        return Explanation(verdict, show_credential(request), phases, answer)

    async def _try(
        self, trial: Trial, request: AuthRequest, seen: Seen
    ) -> tuple[Decision, str | None]:
        deadline_s = self._clock.monotonic_s() + EXPLAIN_TIMEOUT_S
        decision = await self._decider(trial, seen).decide(request, deadline_s)
        if isinstance(decision, Deny) and decision.reason is Reason.INVALID_API_KEY:
            return decision, await diagnose(trial, request, seen)
        return decision, None

    def _decider(self, trial: Trial, seen: Seen) -> Decider:
        metrics = Metrics(CollectorRegistry())
        principals = WatchedPrincipals(trial.principals, seen)
        identifier = Identifier(self._pepper, principals, WatchedVerifier(self._jwts, seen))
        limiter = PeekingLimiter(self._limiter, seen)
        return Decider(
            WatchedAuthenticator(identifier, principals, seen),
            self._snapshot,
            WatchedLimits(limiter, self._snapshot, metrics, seen),
            TriedHolds(trial, seen),
            self._clock,
            metrics,
            self._terms,
        )


def _verdict(decision: Decision | Exception) -> Verdict:
    if isinstance(decision, Exception):
        return Verdict.UNDECIDED
    return Verdict.REFUSE if isinstance(decision, Deny) else Verdict.ALLOW


def _answer(decision: Decision | Exception) -> ClientAnswer:
    if isinstance(decision, Exception):
        is_provider = isinstance(decision, ProviderUnavailable)
        kind = (OutageKind.PROVIDER_UNAVAILABLE if is_provider else OutageKind.UNAVAILABLE).value
        headers = [("retry-after", str(RETRY_AFTER_OUTAGE_S))]
        return ClientAnswer(kind.status, kind.code, kind.sentence, headers)
    if isinstance(decision, Deny):
        kind = decision.reason.value
        return ClientAnswer(kind.status, kind.code, decision.message, refusal_headers(decision))
    whose = "service behind the route" if isinstance(decision, AllowUnmetered) else "provider"
    return ClientAnswer(None, None, f"What the {whose} answers.", limit_headers(decision.limits))
