"""Assembles the parts of the meter, runs them, and stops them in order."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from meter.api.app import create_app
from meter.api.services import ApiDependencies, ProviderReports, Readiness, ReadinessProbe
from meter.clock import SystemClock
from meter.errors import InvalidRequest, StoreUnavailable
from meter.exports.sinks import make_sinks
from meter.exports.webhooks.webhooks import make_webhooks
from meter.history.month_store import HistoryStore
from meter.history.retention import History, Retention
from meter.identity.jwt_setup import issuer_documents, jwt_verifier, own_issuer
from meter.identity.keys.key_text import Pepper
from meter.identity.operator_store import OperatorStore
from meter.identity.pass_store import PassStore
from meter.identity.signing_key_store import SigningKeys
from meter.identity.signing_rotation import SigningRotation
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ledger.lots import CreditExpiry, LotStore
from meter.ledger.write_offs import WriteOffs, WriteOffStore
from meter.listening import listening_socket
from meter.lookups.queue import LookupQueue
from meter.network import read_networks
from meter.payments.payments import make_payments
from meter.postgres.pool import KEYED_SESSION, PostgresPool, open_pool
from meter.process.background import background
from meter.process.crash_points import crash_points_in
from meter.process.periodic import until_done
from meter.process.startup_freeze import spare_long_lived_objects
from meter.process.stopping import stop_event
from meter.process.uvicorn_beside import serving
from meter.providers import openrouter
from meter.providers.base_urls import BaseUrls
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.key_totals import KeyTotals
from meter.providers.providers import Providers
from meter.providers.report_tags import ReportTags
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.routing.route_store import RouteStore
from meter.sealing import MasterKey, SecretText
from meter.serve_settlement import RunningSettlement, run_settlement
from meter.services import Issuing, Services
from meter.settings import MeterSettings, read_secret
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.xds.publisher import ClusterPublisher
from meter.xds.upstreams import UpstreamStore

OPERATOR: Final = "operator"
ADMISSION_RETRY_S: Final = 0.5
API_STOP_GRACE_S: Final = 5
# Longer than Envoy keeps an idle connection to us, so that no request meets a closing one.
KEEP_ALIVE_S: Final = 5

_log = structlog.get_logger(__name__)


async def serve(settings: MeterSettings) -> None:
    """Run until SIGTERM or SIGINT, then settle what has arrived and stop.

    Raises InvalidRequest for an unusable master key, token or list of proxies and where no log
    would be read, OSError for an address that cannot be listened on, RuntimeError when a part of
    the meter ends on its own.
    """
    master_key = MasterKey.from_file(settings.master_key_file)
    token = read_secret(settings.operator_token, settings.operator_token_file, "the operator token")
    reports_token = read_secret(
        settings.provider_reports_token,
        settings.provider_reports_token_file,
        "the token of provider reports",
    )
    if settings.provider_reports and reports_token is None:
        raise InvalidRequest(
            "TOLLKEEPER_PROVIDER_REPORTS is on, but there is no token by which reports are known:"
            " set TOLLKEEPER_PROVIDER_REPORTS_TOKEN as well"
        )
    if not settings.access_logs.has_stream and settings.envoy_access_log is None:
        raise InvalidRequest(
            "TOLLKEEPER_ACCESS_LOGS is `file`, so that no stream arrives, but no file is named:"
            " set TOLLKEEPER_ENVOY_ACCESS_LOG to the file that Envoy writes"
        )
    stripe_mode = settings.stripe_mode
    clock = SystemClock()
    registry = CollectorRegistry()
    crash_points = crash_points_in(settings.crash_folder)
    retention = Retention(
        settings.usage_retention_months,
        settings.ledger_retention_months,
        settings.record_retention_days,
    )
    rotate_after = timedelta(days=settings.signing_key_rotation_days)
    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    # What the stack closes is closed in the reverse order: the API first, then the work in the
    # background, then the settlements, which still need Postgres, and the pool last.
    async with contextlib.AsyncExitStack() as stack:
        dsn = settings.database_url.get_secret_value()
        pool = await open_pool(dsn, settings.database_connections)
        stack.push_async_callback(pool.close)
        jwts = jwt_verifier(pool, settings)
        stack.push_async_callback(jwts.close)
        keys = PostgresProviderKeys(pool, master_key)
        providers = Providers(
            pool,
            keys,
            registry,
            settings.provider_base_url,
            BaseUrls.from_setting(settings.plain_http_providers),
            settings.catalogue_sync_every_s,
        )
        settlements = None
        if settings.corrects_guesses:
            keyed_pool = await open_pool(dsn, 1, KEYED_SESSION)
            stack.push_async_callback(keyed_pool.close)
            settlements = PostgresSettlementStore(keyed_pool, settings.lookup_terms, crash_points)
        reconciler = Reconciler(
            ReconciliationStore(pool),
            KeyTotals(keys, providers.default),
            registry,
            settlements,
            timedelta(seconds=settings.reconcile_lag_s),
        )
        history = History(HistoryStore(pool), retention, registry, clock)
        signing = SigningKeys(pool, master_key, clock, settings.jwt_algorithm)
        rotation = SigningRotation(signing, PassStore(pool), rotate_after, clock)
        reports = None
        if settings.provider_reports and reports_token is not None:
            tags = ReportTags.from_master_key(master_key.reveal())
            lookups = LookupQueue(pool, settings.lookup_terms, openrouter.ID)
            reports = ProviderReports(reports_token, tags, lookups)

        clusters = ClusterPublisher(
            UpstreamStore(providers.store, RouteStore(pool)).load,
            settings.envoy_clusters,
            # The Envoy beside us reads the file; others have administrations of their own.
            None if settings.envoy_admin is None else EnvoyAdmin(settings.envoy_admin),
            registry,
        )
        sinks = make_sinks(pool, master_key, registry)
        stack.push_async_callback(sinks.sender.close)
        webhooks = make_webhooks(
            pool, master_key, clock, registry, read_networks(settings.webhook_networks)
        )
        stack.push_async_callback(webhooks.sender.close)
        payments = None
        if stripe_mode is not None:
            payments = make_payments(stripe_mode, pool, clock, registry)
            stack.push_async_callback(payments.gateway.close)

        settlement = await stack.enter_async_context(
            run_settlement(
                settings,
                pool,
                keys,
                providers,
                registry,
                crash_points,
            )
        )
        # This task ends once it has succeeded, so it is not among the tasks that must not end.
        admission = _admit_operator(pool, token)
        await stack.enter_async_context(background("operator admission", admission))
        tasks = list(settlement.tasks)
        works: dict[str, Callable[[], Coroutine[None, None, None]]] = {
            "providers": providers.registry.run,
            "catalogue syncs": providers.syncs.run,
            "provider keys": providers.keys.run,
            "clusters": clusters.run,
            "history": history.run,
            "signing rotation": rotation.run,
            "sinks": sinks.worker.run,
            "webhooks": webhooks.worker.run,
            "write-offs": WriteOffs(WriteOffStore(pool), registry).run,
            "credit expiry": CreditExpiry(LotStore(pool), clock, registry).run,
            "reconciliation": partial(reconciler.run, settings.reconcile_every_s),
        }
        if payments is not None:
            works |= {
                "stripe events": payments.worker.run,
                "stripe sweep": payments.sweep.run,
                "automatic top-ups": payments.auto_top_ups.run,
                "stripe comparison": payments.nightly.run,
            }
        for name, run in works.items():
            tasks.append(await stack.enter_async_context(background(name, run())))

        pepper = Pepper.from_master_key(master_key.reveal())
        issuing = Issuing(own_issuer(settings), signing, issuer_documents(settings))
        app = create_app(
            ApiDependencies(
                services=Services(pool, pepper, clock, issuing, jwts, keys, providers, reconciler),
                registry=registry,
                provider_base_url=settings.provider_base_url,
                readiness=_readiness_probes(providers, settlement, clusters),
                provider_reports=reports,
                payments=payments,
                sinks=sinks,
                webhooks=webhooks.store,
                clusters=clusters,
                trusted_proxies=read_networks(settings.trusted_proxies),
            )
        )
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            # meter/network.py finds the address of the caller, and trusts our proxies only.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=API_STOP_GRACE_S,
        )
        listening = stack.enter_context(listening_socket(settings.meter_listen))
        tasks.append(await stack.enter_async_context(serving(config, listening, "api")))

        spare_long_lived_objects()
        _log.info("meter_started", api=settings.meter_listen, ingest=settings.ingest_listen)
        # A part that ends on its own ends the process, and its error says why.
        stopped = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in done - {stopped}:
            task.result()
            raise RuntimeError(f"{task.get_name()} ended on its own")
        _log.info("meter_stopping")


async def _admit_operator(pool: PostgresPool, token: SecretText | None) -> None:
    """Store the digest of the operator token as soon as Postgres answers."""
    if token is not None:
        admit = partial(OperatorStore(pool).admit, OPERATOR, token)
        await until_done("operator_admission", admit, ADMISSION_RETRY_S, (StoreUnavailable,))


def _readiness_probes(
    providers: Providers, settlement: RunningSettlement, clusters: ClusterPublisher
) -> dict[str, ReadinessProbe]:
    """Return probes of parts that a meter can do without; Postgres has a probe in the API."""

    async def catalogue() -> Readiness:
        # The last catalogue stays usable while a provider is away.
        return optional(providers.syncs.problem())

    async def provider_key() -> Readiness:
        return optional(providers.keys.problem())

    async def access_log_file() -> Readiness:
        # A meter settles from the stream without its file.
        if settlement.file is None:
            return optional("the access-log file is not read, so the log stream is alone")
        return optional(settlement.file.status().reason)

    async def token_counting() -> Readiness:
        # Without it limits of tokens are less exact, and nothing else is.
        if settlement.counter is None:
            return optional(
                "TOLLKEEPER_REDIS_URL is not set, so limits of tokens know of prompts only"
            )
        return optional("Redis did not answer" if settlement.counter.is_away else None)

    async def envoy_clusters() -> Readiness:
        # The default provider is in Envoy's own configuration.
        return optional(clusters.problem)

    def optional(reason: str | None) -> Readiness:
        return Readiness(is_ready=reason is None, reason=reason, is_required=False)

    return {
        "catalogue": catalogue,
        "provider_key": provider_key,
        "access_log_file": access_log_file,
        "token_counting": token_counting,
        "envoy_clusters": envoy_clusters,
    }
