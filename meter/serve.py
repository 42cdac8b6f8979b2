"""The running meter: takes the access log in, settles it, answers the API, syncs the catalogue."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from meter.api.app import create_app
from meter.api.services import ApiDependencies, ProviderReports, Readiness
from meter.clock import SystemClock
from meter.errors import InvalidRequest, StoreUnavailable
from meter.history.month_store import HistoryStore
from meter.history.retention import History, Retention
from meter.identity.jwt_setup import issuer_documents, jwt_verifier, own_issuer
from meter.identity.keys.key_text import Pepper
from meter.identity.operator_store import OperatorStore
from meter.identity.pass_store import PassStore
from meter.identity.signing_key_store import SigningKeys
from meter.identity.signing_rotation import SigningRotation
from meter.ingest.log_file.log_file import AccessLogFile
from meter.jwts.verifying import JwtVerifier
from meter.lookups.queue import LookupQueue
from meter.network import read_networks
from meter.postgres.pool import PostgresPool, open_pool
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.process.background import background
from meter.process.crash_points import crash_points_in
from meter.process.periodic import until_done
from meter.process.startup_freeze import spare_long_lived_objects
from meter.process.stopping import stop_event
from meter.process.uvicorn_beside import serving
from meter.providers.catalogue_sync import CatalogueSync
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.openrouter.key_totals import KeyTotals
from meter.providers.report_tags import ReportTags
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.sealing import MasterKey, SecretText
from meter.serve_settlement import settling
from meter.services import Issuing, Services
from meter.settings import MeterSettings, read_secret
from meter.settlement.token_counting import TokenCounter

OPERATOR: Final = "operator"
ADMISSION_RETRY_S: Final = 0.5
API_STOP_GRACE_S: Final = 5
# Longer than Envoy keeps an idle connection to us, so that no request meets a closing one.
KEEP_ALIVE_S: Final = 5

_log = structlog.get_logger(__name__)


async def serve(settings: MeterSettings) -> None:
    """Run until SIGTERM or SIGINT, then settle what has arrived and leave.

    Raises InvalidRequest for an unusable master key or operator token, OSError for an address
    that cannot be listened on.
    """
    master_key = MasterKey.from_file(settings.master_key_file)
    token = read_secret(settings.operator_token, settings.operator_token_file, "the operator token")
    registry = CollectorRegistry()
    crash_points = crash_points_in(settings.crash_folder)
    dsn = settings.database_url.get_secret_value()
    pool = await open_pool(dsn, settings.database_connections)
    catalogue = PostgresCatalogue(pool)
    keys = PostgresProviderKeys(pool, master_key)
    sync = CatalogueSync(
        catalogue, keys, settings.provider_base_url, settings.catalogue_sync_every_s, registry
    )
    reconciler = Reconciler(
        ReconciliationStore(pool), KeyTotals(keys, settings.provider_base_url), registry
    )
    history = _history(settings, pool, registry)
    reports = _provider_reports(settings, pool, master_key)
    clock = SystemClock()
    signing = SigningKeys(pool, master_key, clock, settings.jwt_algorithm)
    issuing = Issuing(own_issuer(settings), signing, issuer_documents(settings))
    rotate_after = timedelta(days=settings.signing_key_rotation_days)
    rotation = SigningRotation(signing, PassStore(pool), rotate_after, clock)
    jwts = jwt_verifier(pool, settings)
    stop = stop_event(signal.SIGTERM, signal.SIGINT)
    async with (
        _closing(pool),
        _closing_verifier(jwts),
        settling(settings, pool, keys, registry, crash_points) as ending,
        background("operator admission", _admit_operator(pool, token)),
        background("catalogue sync", sync.run()) as syncing,
        background("history", history.run()) as tending,
        background("signing rotation", rotation.run()) as rotating,
        background("reconciliation", reconciler.run(settings.reconcile_every_s)) as reconciling,
    ):
        pepper = Pepper.from_master_key(master_key.reveal())
        outside = ApiDependencies(
            services=Services(pool, pepper, clock, issuing, jwts, keys, reconciler),
            registry=registry,
            provider_base_url=settings.provider_base_url,
            readiness={
                "catalogue": lambda: _catalogue_readiness(sync),
                "access_log_file": lambda: _file_readiness(ending.file),
                "token_counting": lambda: _counting_readiness(ending.counter),
            },
            provider_reports=reports,
            trusted_proxies=read_networks(settings.trusted_proxies),
        )
        async with _api(settings, outside) as answering:
            spare_long_lived_objects()
            _log.info("meter_started", api=settings.meter_listen, ingest=settings.ingest_listen)
            await _until_stopped(
                stop, *ending.tasks, syncing, tending, rotating, reconciling, answering
            )
            _log.info("meter_stopping")


async def _until_stopped(stop: asyncio.Event, *vital: asyncio.Task[None]) -> None:
    """Wait for the signal; a part that ends on its own ends the process, and says why."""
    stopped = asyncio.ensure_future(stop.wait())
    done, _ = await asyncio.wait({stopped, *vital}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in done - {stopped}:
        task.result()
        raise RuntimeError(f"{task.get_name()} ended on its own")


def _provider_reports(
    settings: MeterSettings, pool: PostgresPool, master_key: MasterKey
) -> ProviderReports | None:
    token = read_secret(
        settings.provider_reports_token,
        settings.provider_reports_token_file,
        "the token of provider reports",
    )
    if not settings.provider_reports:
        return None
    if token is None:
        raise InvalidRequest("provider reports are on, so TOLLKEEPER_PROVIDER_REPORTS_TOKEN is due")
    tags = ReportTags.from_master_key(master_key.reveal())
    return ProviderReports(token, tags, LookupQueue(pool, settings.lookup_terms))


async def _admit_operator(pool: PostgresPool, token: SecretText | None) -> None:
    """Store the digest of the operator token as soon as Postgres answers."""
    if token is not None:
        admit = partial(OperatorStore(pool).admit, OPERATOR, token)
        outages = (StoreUnavailable,)
        await until_done("operator_admission", admit, ADMISSION_RETRY_S, outages)


async def _catalogue_readiness(sync: CatalogueSync) -> Readiness:
    """The last catalogue stays usable while the provider is away, so it is never required."""
    reason = None if sync.is_synced else "not synced since this meter started"
    return Readiness(is_ready=sync.is_synced, reason=reason, is_required=False)


async def _file_readiness(file: AccessLogFile | None) -> Readiness:
    """A meter settles from the stream without its file, so that is never required."""
    if file is None:
        reason = "TOLLKEEPER_ENVOY_ACCESS_LOG is not set, so the log stream is alone"
        return Readiness(is_ready=False, reason=reason, is_required=False)
    problem = file.standing().reason
    return Readiness(is_ready=problem is None, reason=problem, is_required=False)


async def _counting_readiness(counter: TokenCounter | None) -> Readiness:
    """Without it limits of tokens are less exact, and nothing else is."""
    reason = None
    if counter is None:
        reason = "TOLLKEEPER_REDIS_URL is not set, so limits of tokens know of prompts only"
    elif counter.is_away:
        reason = "Redis did not answer"
    return Readiness(is_ready=reason is None, reason=reason, is_required=False)


def _history(settings: MeterSettings, pool: PostgresPool, registry: CollectorRegistry) -> History:
    retention = Retention(settings.usage_retention_months, settings.ledger_retention_months)
    return History(HistoryStore(pool), retention, registry, SystemClock())


@contextlib.asynccontextmanager
async def _closing(pool: PostgresPool) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def _closing_verifier(jwts: JwtVerifier) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await jwts.close()


@contextlib.asynccontextmanager
async def _api(
    settings: MeterSettings, outside: ApiDependencies
) -> AsyncIterator[asyncio.Task[None]]:
    config = uvicorn.Config(
        create_app(outside),
        access_log=False,
        log_config=None,
        server_header=False,
        # Who called is for meter/network.py to say, which believes proxies of ours only.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=API_STOP_GRACE_S,
    )
    with _listening_socket(settings.meter_listen) as listening:
        async with serving(config, listening, "api") as answering:
            yield answering


def _listening_socket(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
