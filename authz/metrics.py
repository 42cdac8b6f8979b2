"""The metrics of authz."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from authz.tallies import Durations, LabelledTallies, TallyGauge
from meter.limits.limits import Limit

_CHECK_BUCKETS_S: Final = (
    *(0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)


# Accounts that the counter of shed checks tells apart; all further ones are "other".
MAX_SHED_ACCOUNTS: Final = 100


class Metrics:
    """The counters, made in the registry that is passed in. Tallies count what each check does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._decisions = LabelledTallies(
            "tollkeeper_authz_decisions",
            "Checks by outcome (allow, continue, deny, outage) and code.",
            ("outcome", "code"),
        )
        self.check_seconds = Durations(
            "tollkeeper_authz_check_seconds",
            "How long checks take inside this process.",
            _CHECK_BUCKETS_S,
        )
        self.checks_in_flight = TallyGauge(
            "tollkeeper_authz_checks_in_flight", "Checks being decided."
        )
        lookups = LabelledTallies(
            "tollkeeper_authz_principal_lookups",
            "Look-ups of principals, by whether the cache had them.",
            ("result",),
        )
        self.principal_hits = lookups.of("hit")
        self.principal_misses = lookups.of("miss")
        for collector in (self._decisions, self.check_seconds, self.checks_in_flight, lookups):
            registry.register(collector)
        self.lookups_refused = Counter(
            "tollkeeper_authz_lookups_refused",
            "Credentials never seen alive that were not looked up, because too many came.",
            registry=registry,
        )
        self._shadow_refusals = Counter(
            "tollkeeper_authz_shadow_refusals",
            "Requests that a limit in shadow mode would have refused.",
            ("bucket", "kind"),
            registry=registry,
        )
        self._arriving_bodies = Counter(
            "tollkeeper_authz_arriving_bodies",
            "Large bodies that wanted room in Envoy's memory, by answer.",
            ("room",),
            registry=registry,
        )
        self.models = Gauge(
            "tollkeeper_authz_catalogue_models", "Models in the catalogue.", registry=registry
        )
        self.limits_degraded = Gauge(
            "tollkeeper_authz_limits_degraded",
            "1 while Redis is away and limits are counted in this process.",
            registry=registry,
        )
        self.limits_evicted = Counter(
            "tollkeeper_authz_limits_evicted",
            "Keys that Redis evicted for want of memory, windows of limits among them.",
            registry=registry,
        )
        self.late_holds = Counter(
            "tollkeeper_authz_late_holds",
            "Holds given back because nobody could use them any more.",
            registry=registry,
        )

        self._shed = Counter(
            "tollkeeper_authz_shed",
            "Checks that were refused unread because of load, by account and by what ran out.",
            ("account", "cause"),
            registry=registry,
        )
        self._shed_accounts: set[str] = set()
        self.holds_waiting = Gauge(
            "tollkeeper_authz_holds_waiting",
            "Checks that wait for the commit of their hold.",
            registry=registry,
        )
        self.hold_commit_seconds = Gauge(
            "tollkeeper_authz_hold_commit_seconds",
            "Running mean of how long a commit of holds takes.",
            registry=registry,
        )

    def count_shed(self, account_id: str, cause: str) -> None:
        """Count a check that was shed: `cause` is share or wait."""
        if account_id not in self._shed_accounts:
            if len(self._shed_accounts) >= MAX_SHED_ACCOUNTS:
                account_id = "other"
            else:
                self._shed_accounts.add(account_id)
        self._shed.labels(account_id, cause).inc()

    def count_arriving_body(self, room: str) -> None:
        """Count a large body by whether it was given room."""
        self._arriving_bodies.labels(room).inc()

    def count_shadow_refusal(self, limit: Limit) -> None:
        """Count a refusal that a limit in shadow mode would have made, by its rule."""
        rule = ":".join(limit.bucket.split(":")[:2])
        self._shadow_refusals.labels(rule, limit.kind.value).inc()

    def count_decision(self, outcome: str, code: str) -> None:
        """Count one decision; codes come from the closed lists in `decision.py`."""
        self._decisions.of(outcome, code).inc()
