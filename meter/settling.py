"""Everything of a running meter that ends holds: two logs, look-ups and the sweep."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client import CollectorRegistry

from meter.background import background
from meter.clock import SystemClock
from meter.crash_points import CrashPoints
from meter.envoy_admin import EnvoyAdmin
from meter.errors import ProviderUnavailable
from meter.ingest.batcher import Batcher
from meter.ingest.file_metrics import FileMetrics
from meter.ingest.log_files import AccessLogFile
from meter.ingest.metrics import IngestMetrics
from meter.ingest.server import STOP_GRACE_S, AccessLogService, build_server
from meter.lookup import FindUsage, LookupMetrics, LookupWorker
from meter.ports import ProviderKeys
from meter.providers.generations import fetch_generation
from meter.providers.openrouter import PROVIDER
from meter.settings import MeterSettings
from meter.stores.log_positions import PostgresLogPositions
from meter.stores.lookups import PostgresLookups
from meter.stores.postgres import KEYED_SESSION, PostgresPool, open_pool
from meter.stores.provider_keys import SYSTEM_OWNER
from meter.stores.settlements import PostgresSettlements
from meter.stores.sweeping import PostgresSweeping
from meter.sweep import Sweep
from meter.undecided import UndecidedRequest
from meter.usage import ReportedUsage

SETTLEMENT_CONNECTIONS: Final = 2
LOOKUP_CONNECTIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Settling:
    """What runs: tasks that must not end, and the reader of the log file where there is one."""

    tasks: tuple[asyncio.Task[None], ...]
    file: AccessLogFile | None


@contextlib.asynccontextmanager
async def settling(
    settings: MeterSettings,
    pool: PostgresPool,
    keys: ProviderKeys,
    registry: CollectorRegistry,
    crash_points: CrashPoints,
) -> AsyncIterator[Settling]:
    """Run it all. At the end: stop reading, settle the rest.

    Raises OSError when the access-log service cannot listen.
    """
    dsn = settings.database_url.get_secret_value()
    metrics = IngestMetrics(registry)
    sweeping = PostgresSweeping(pool, settings.lookup_terms.patience, crash_points)
    async with contextlib.AsyncExitStack() as stack:
        books = await _pool(stack, dsn, SETTLEMENT_CONNECTIONS)
        settlements = PostgresSettlements(books, settings.lookup_terms, crash_points)
        batcher = Batcher(settlements, metrics)
        works = {"sweep": Sweep(sweeping, settings.sweep_every_s, registry).run}
        if settings.lookups_per_second > 0:
            asking = await _pool(stack, dsn, LOOKUP_CONNECTIONS)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            find_usage = _asks_provider(session, settings.provider_base_url, keys)
            worker = _lookups(settings, asking, find_usage, metrics, registry, crash_points)
            works["look-ups"] = worker.run
        file = _access_log_file(settings, pool, batcher, sweeping, registry, crash_points)
        if file is not None:
            works["access-log file"] = file.run
        ingesting = await stack.enter_async_context(_ingest(settings, batcher, metrics))
        tasks = [
            await stack.enter_async_context(background(name, work()))
            for name, work in works.items()
        ]
        yield Settling((ingesting, *tasks), file)


def _lookups(
    settings: MeterSettings,
    pool: PostgresPool,
    find_usage: FindUsage,
    metrics: IngestMetrics,
    registry: CollectorRegistry,
    crash_points: CrashPoints,
) -> LookupWorker:
    return LookupWorker(
        PostgresLookups(pool, settings.lookup_terms),
        PostgresSettlements(pool, settings.lookup_terms, crash_points),
        find_usage,
        SystemClock(),
        LookupMetrics(registry),
        metrics.count,
        crash_points,
        per_second=settings.lookups_per_second,
        has_reports=settings.provider_reports,
    )


def _asks_provider(session: aiohttp.ClientSession, base_url: str, keys: ProviderKeys) -> FindUsage:
    """How the provider is asked for a generation, with the system's own key."""

    async def find_usage(generation_id: str) -> ReportedUsage | None:
        key = await keys.find_key(PROVIDER, SYSTEM_OWNER)
        if key is None:
            raise ProviderUnavailable("no provider key is set")
        record = await fetch_generation(session, base_url.rstrip("/"), key, generation_id)
        return None if record is None else record.usage

    return find_usage


def _access_log_file(
    settings: MeterSettings,
    pool: PostgresPool,
    batcher: Batcher,
    sweeping: PostgresSweeping,
    registry: CollectorRegistry,
    crash_points: CrashPoints,
) -> AccessLogFile | None:
    if settings.envoy_access_log is None:
        return None

    async def note_undecided(requests: list[UndecidedRequest]) -> None:
        await sweeping.note_undecided([request.request_id for request in requests])

    return AccessLogFile(
        settings.envoy_access_log,
        PostgresLogPositions(pool),
        batcher,
        note_undecided,
        FileMetrics(registry),
        SystemClock(),
        crash_points,
        None if settings.envoy_admin is None else EnvoyAdmin(settings.envoy_admin),
    )


async def _pool(stack: contextlib.AsyncExitStack, dsn: str, most_connections: int) -> PostgresPool:
    pool = await open_pool(dsn, most_connections, KEYED_SESSION)
    stack.push_async_callback(pool.close)
    return pool


@contextlib.asynccontextmanager
async def _ingest(
    settings: MeterSettings, batcher: Batcher, metrics: IngestMetrics
) -> AsyncIterator[asyncio.Task[None]]:
    """Take the access log in; at the end stop reading first, then settle what is queued."""
    server = build_server(AccessLogService(batcher, metrics), settings.ingest_listen)
    working = batcher.start()
    await server.start()
    try:
        yield working
    finally:
        await server.stop(STOP_GRACE_S)
        await batcher.drain()
