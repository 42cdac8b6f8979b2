"""Explains a decision: by the same code that decides, in a transaction that is rolled back.

No hold is placed, no limit counted, no use recorded, no account created, and no refusal delayed.
"""

import asyncio
from dataclasses import replace
from typing import Final

from prometheus_client import CollectorRegistry

from authz.callers.authenticate import Authenticator
from authz.catalogue import CatalogueSnapshot
from authz.decide import Decider, Terms
from authz.decision import Allow, AllowUnmetered, Decision, Deny, NeedsWholeBody, Reason
from authz.explain.diagnosis import diagnose, show_credential
from authz.explain.dry_run import DecisionTrace, DryRunHolds, DryRunLimiter
from authz.explain.explanation import ClientAnswer, Explanation, Verdict
from authz.explain.words import Explained, report_phases
from authz.headers import RETRY_AFTER_OUTAGE_S, limit_headers, refusal_headers
from authz.limits.counting import Limits
from authz.limits.redis_limiter import RedisLimiter
from authz.metrics import Metrics
from authz.request import AuthRequest
from authz.routing.own_keys import OwnKeyCache
from authz.service import outage_kind
from meter.clock import Clock
from meter.errors import Outage
from meter.holds.dry_run import open_dry_run
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.keys.key_text import Pepper
from meter.jwts.verifying import JwtVerifier
from meter.postgres.pool import PostgresPool
from meter.providers import openrouter

# The keys of an issuer may have to be fetched on the way.
EXPLAIN_TIMEOUT_S: Final = 10.0


class Explainer:
    """Explains decisions one at a time, so that checks keep the other connections to Postgres."""

    def __init__(
        self,
        pool: PostgresPool,
        pepper: Pepper,
        jwts: JwtVerifier,
        snapshot: CatalogueSnapshot,
        limiter: RedisLimiter,
        clock: Clock,
        terms: Terms,
        own_keys: OwnKeyCache | None = None,
    ) -> None:
        self._pool = pool
        self._pepper = pepper
        self._jwts = jwts
        self._snapshot = snapshot
        self._limiter = limiter
        self._clock = clock
        self._own_keys = own_keys
        # An explanation states why a credential is refused, so a delay would hide nothing.
        self._terms = replace(terms, refusal_step_s=0.0)
        self._turn = asyncio.Lock()

    async def explain(self, request: AuthRequest) -> Explanation:
        """Return the explanation of a request. An outage is explained as well, and not raised."""
        explained = Explained(
            request,
            self._terms,
            DecisionTrace(),
            DryRunLimiter(self._limiter),
            Outage("nothing was decided"),
        )
        try:
            async with self._turn, asyncio.timeout(EXPLAIN_TIMEOUT_S):
                await self._try_out(explained)
        except (Outage, TimeoutError) as error:
            explained.decision, explained.diagnosis = error, None
        return Explanation(
            _verdict(explained.decision),
            show_credential(request),
            report_phases(explained),
            _answer(explained.decision),
            self._warnings(explained.decision),
        )

    def _warnings(self, decision: Decision | Exception) -> list[str]:
        if not isinstance(decision, Allow):
            return []
        upstream = decision.upstream
        in_turn = [openrouter.ID]
        if upstream is not None:
            if upstream.is_own_key:
                return []
            in_turn = [upstream.provider, *(provider for provider, _ in upstream.fallbacks)]
        refusals = ((one, self._snapshot.find_key_refusal(one)) for one in in_turn)
        return [refusal.advice(one) for one, refusal in refusals if refusal is not None]

    async def _try_out(self, explained: Explained) -> None:
        metrics = Metrics(CollectorRegistry())
        async with open_dry_run(self._pool) as dry_run:
            explained.holds = DryRunHolds(dry_run)
            decider = Decider(
                Authenticator(CredentialResolver(self._pepper, dry_run.principals, self._jwts)),
                self._snapshot,
                Limits(explained.limiter, self._snapshot, metrics),
                explained.holds,
                self._clock,
                metrics,
                self._terms,
                own_keys=self._own_keys,
            )
            request, deadline_s = explained.request, self._clock.monotonic_s() + EXPLAIN_TIMEOUT_S
            decision = await decider.decide(request, deadline_s, explained.trace)
            explained.decision = decision
            if isinstance(decision, Deny) and decision.reason is Reason.INVALID_API_KEY:
                explained.diagnosis = await diagnose(dry_run, self._jwts, request, explained.trace)


def _verdict(decision: Decision | Exception) -> Verdict:
    if isinstance(decision, Exception):
        return Verdict.UNDECIDED
    return Verdict.REFUSE if isinstance(decision, Deny) else Verdict.ALLOW


def _answer(decision: Decision | Exception) -> ClientAnswer:
    if isinstance(decision, Exception):
        kind = outage_kind(decision).value
        headers = [("retry-after", str(RETRY_AFTER_OUTAGE_S))]
        return ClientAnswer(kind.status, kind.code, kind.sentence, headers)
    if isinstance(decision, Deny):
        kind = decision.reason.value
        return ClientAnswer(kind.status, kind.code, decision.message, refusal_headers(decision))
    if isinstance(decision, NeedsWholeBody):
        return ClientAnswer(None, None, "What the second check, of the whole body, answers.", [])
    whose = "service behind the route" if isinstance(decision, AllowUnmetered) else "provider"
    return ClientAnswer(None, None, f"What the {whose} answers.", limit_headers(decision.limits))
