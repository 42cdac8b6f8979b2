"""Assembles authz from its parts and the real stores."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry

from authz.callers.authenticate import Authenticator
from authz.callers.last_uses import LastUses
from authz.callers.principal_cache import PrincipalCache
from authz.catalogue import CatalogueSnapshot, KeyState
from authz.decide import Decider, Tagger, Terms, no_tag
from authz.endpoints.body_work import BodyWork
from authz.explain.explainer import Explainer
from authz.health import ComponentHealth, HealthServer
from authz.limits.arriving_bodies import ArrivingBodies
from authz.limits.counting import Limits
from authz.limits.local_limiter import LocalLimiter
from authz.limits.redis_limiter import RedisLimiter
from authz.metrics import Metrics
from authz.routing.own_keys import OwnKeyCache
from authz.service import CheckService
from authz.settings import Settings
from meter.clock import SystemClock
from meter.errors import Outage
from meter.holds.hold_store import PostgresHolds
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.jwt_setup import jwt_verifier
from meter.identity.keys.key_text import Pepper
from meter.identity.last_use_store import PostgresCredentialUses
from meter.identity.principal_store import PostgresPrincipals
from meter.limits.redis_windows import connect
from meter.limits.rule_store import LimitRuleStore
from meter.network import read_networks
from meter.postgres.pool import KEYED_SESSION, PostgresPool, is_reachable, open_pool
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.process.background import background
from meter.process.crash_points import crash_points_in
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.report_tags import ReportTags
from meter.routing.table_store import RoutingStore
from meter.sealing import MasterKey

_MS_PER_S: Final = 1_000
# The readiness check must answer while Postgres hangs.
POSTGRES_TIMEOUT_S: Final = 1.0
FIRST_LOOK_TIMEOUT_S: Final = 2.0
# Below the second that the deletion of an own key may take, by more than a hold may wait.
OWN_KEY_MAX_AGE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Application:
    """The two services that `__main__` serves."""

    service: CheckService
    health: HealthServer


@contextlib.asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Make every part, and close them in the right order: holds are ended before Postgres goes.

    Raises InvalidRequest for an unusable master key. Postgres and Redis may be away.
    """
    master_key = MasterKey.from_file(settings.master_key_file)
    async with contextlib.AsyncExitStack() as closing:
        pool = await open_pool(
            settings.database_url.get_secret_value(),
            settings.authz_database_connections,
            KEYED_SESSION,
        )
        closing.push_async_callback(_close_pool, pool)
        crash_points = crash_points_in(settings.crash_folder)
        lifetime = timedelta(seconds=settings.authz_hold_lifetime_s)
        holds = PostgresHolds(pool, lifetime, crash_points)
        closing.push_async_callback(holds.close)
        metrics, clock = Metrics(CollectorRegistry()), SystemClock()
        metrics.holds_waiting.set_function(lambda: holds.waiting)
        metrics.hold_commit_seconds.set_function(lambda: holds.commit_s)
        redis_timeout_s = settings.authz_redis_timeout_ms / _MS_PER_S
        limiter = RedisLimiter(
            connect(settings.redis_url.get_secret_value(), redis_timeout_s),
            LocalLimiter(clock, settings.authz_expected_instances),
            metrics,
            redis_timeout_s,
            clock,
        )
        closing.push_async_callback(limiter.close)
        jwts = jwt_verifier(pool, settings)
        closing.push_async_callback(jwts.close)
        bodies = ArrivingBodies(
            connect(settings.redis_url.get_secret_value(), redis_timeout_s),
            clock,
            metrics,
            redis_timeout_s,
            settings.authz_arriving_bytes,
            settings.authz_arriving_account_bytes,
        )
        closing.push_async_callback(bodies.close)
        keys = PostgresProviderKeys(pool, master_key)
        snapshot = CatalogueSnapshot(
            PostgresCatalogue(pool), keys, LimitRuleStore(pool), RoutingStore(pool), metrics
        )
        own_keys = OwnKeyCache(keys.find_own_keys, clock, OWN_KEY_MAX_AGE_S)
        # Load the prices before the first check arrives: until then Envoy asks another instance.
        # An outage is not waited for, because the only instance can at least answer 503.
        with contextlib.suppress(Outage, TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_TIMEOUT_S):
                await snapshot.refresh()
        refreshing = asyncio.create_task(snapshot.keep_fresh(settings.authz_catalogue_refresh_s))
        closing.callback(refreshing.cancel)
        uses = LastUses()
        await closing.enter_async_context(_written(uses, PostgresCredentialUses(pool)))
        pepper = Pepper.from_master_key(master_key.reveal())
        principals = PrincipalCache(
            PostgresPrincipals(pool),
            clock,
            metrics,
            settings.authz_principal_max_age_ms / _MS_PER_S,
            first_lookups_per_s=settings.authz_first_lookups_per_s,
        )
        terms = Terms(
            settings.authz_floor_tokens,
            settings.authz_max_body_bytes,
            read_networks(settings.trusted_proxies),
            settings.authz_refusal_step_ms / _MS_PER_S,
            settings.credit_url,
        )
        tag: Tagger = no_tag
        if settings.provider_reports:
            tag = ReportTags.from_master_key(master_key.reveal()).tag
        body_work = BodyWork(clock)
        closing.callback(body_work.close)
        decider = Decider(
            Authenticator(CredentialResolver(pepper, principals, jwts)),
            snapshot,
            Limits(limiter, snapshot, metrics),
            holds,
            clock,
            metrics,
            terms,
            tag,
            uses,
            body_work,
            bodies,
            own_keys,
        )
        deadline_after_s = settings.authz_deadline_ms / _MS_PER_S
        service = CheckService(decider, clock, metrics, deadline_after_s, crash_points)
        dependencies = DependencyHealth(pool, snapshot, limiter)
        explainer = Explainer(pool, pepper, jwts, snapshot, limiter, clock, terms, own_keys)
        health = HealthServer(dependencies.read, metrics.registry, explainer.explain)
        closing.push_async_callback(health.stop)
        yield Application(service, health)


@contextlib.asynccontextmanager
async def _written(uses: LastUses, store: PostgresCredentialUses) -> AsyncIterator[None]:
    """Write last uses from time to time, and the remaining ones at the end."""
    async with background("last uses", uses.keep_writing(store)):
        yield
    with contextlib.suppress(Outage):
        await uses.write(store)


async def _close_pool(pool: PostgresPool) -> None:
    """Close connections, without waiting for one that hangs."""
    try:
        async with asyncio.timeout(POSTGRES_TIMEOUT_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


class DependencyHealth:
    """Reads the health of the services that checks depend on."""

    def __init__(
        self, pool: PostgresPool, snapshot: CatalogueSnapshot, limiter: RedisLimiter
    ) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._limiter = limiter

    async def read(self) -> Mapping[str, ComponentHealth]:
        """Return the health of each, by name. Redis and the provider key are not required."""
        has_postgres = await self._has_postgres()
        is_loaded = self._snapshot.is_loaded
        key = self._snapshot.key_state
        is_degraded = self._limiter.is_degraded
        return {
            "postgres": ComponentHealth("ok" if has_postgres else "away", has_postgres),
            "catalogue": ComponentHealth("ok" if is_loaded else "not_loaded", is_loaded),
            "redis": ComponentHealth(
                "degraded" if is_degraded else "ok", not is_degraded, is_required=False
            ),
            "provider_key": ComponentHealth(key.value, key is KeyState.OK, is_required=False),
        }

    async def _has_postgres(self) -> bool:
        try:
            async with asyncio.timeout(POSTGRES_TIMEOUT_S):
                return await is_reachable(self._pool)
        except TimeoutError:
            return False
