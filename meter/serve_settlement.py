"""Everything of a running meter that ends holds: two logs, look-ups and the sweep."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry

from meter.clock import SystemClock
from meter.errors import ProviderUnavailable
from meter.holds.abandoned_check import UndecidedRequest
from meter.holds.sweep import Sweep
from meter.holds.sweep_store import SweepStore
from meter.ingest.batcher import Batcher
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ingest.log_file.log_file import AccessLogFile
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position_store import LogPositionStore
from meter.ingest.metrics import IngestMetrics
from meter.ingest.stream.server import STOP_GRACE_S, AccessLogService, build_server
from meter.limits.redis_windows import RedisLimitWindows, connect
from meter.lookups.queue import LookupQueue
from meter.lookups.worker import FindUsage, LookupMetrics, LookupWorker
from meter.postgres.pool import KEYED_SESSION, PostgresPool, open_pool
from meter.process.background import background
from meter.process.crash_points import CrashPoints
from meter.providers.key_store import SYSTEM_OWNER
from meter.providers.openrouter.catalogue import PROVIDER
from meter.providers.openrouter.generations import fetch_generation
from meter.providers.provider_keys import ProviderKeys
from meter.settings import MeterSettings
from meter.settlement.port import SettlementStore
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.token_counting import CountingSettlementStore, TokenCounter
from meter.usage.usage import ReportedUsage

SETTLEMENT_CONNECTIONS: Final = 2
LOOKUP_CONNECTIONS: Final = 4
REDIS_TIMEOUT_S: Final = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settling:
    """What runs: tasks that must not end, and, where there is one, the reader of the log file and
    whoever counts tokens against limits.
    """

    tasks: tuple[asyncio.Task[None], ...]
    file: AccessLogFile | None
    counter: TokenCounter | None


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
    sweeping = SweepStore(pool, settings.lookup_terms.patience, crash_points)
    async with contextlib.AsyncExitStack() as stack:
        books = await _pool(stack, dsn, SETTLEMENT_CONNECTIONS)
        counter = await _token_counter(stack, settings, registry)
        counting = None
        if counter is not None:
            # Entered before those who settle, so it ends after them.
            counting = await stack.enter_async_context(background("token counting", counter.run()))
        batcher = Batcher(_settlements(books, settings, crash_points, counter), metrics)
        works = {"sweep": Sweep(sweeping, settings.sweep_every_s, registry).run}
        if settings.lookups_per_second > 0:
            asking = await _pool(stack, dsn, LOOKUP_CONNECTIONS)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            find_usage = _asks_provider(session, settings.provider_base_url, keys)
            endings = _settlements(asking, settings, crash_points, counter)
            worker = _lookups(
                settings, asking, endings, find_usage, metrics, registry, crash_points
            )
            works["look-ups"] = worker.run
        file = _access_log_file(settings, pool, batcher, sweeping, registry, crash_points)
        if file is not None:
            works["access-log file"] = file.run
        ingesting = await stack.enter_async_context(_ingest(settings, batcher, metrics))
        tasks = [
            await stack.enter_async_context(background(name, work()))
            for name, work in works.items()
        ]
        vital = [ingesting, *tasks] if counting is None else [ingesting, *tasks, counting]
        yield Settling(tuple(vital), file, counter)


def _settlements(
    pool: PostgresPool,
    settings: MeterSettings,
    crash_points: CrashPoints,
    counter: TokenCounter | None,
) -> SettlementStore:
    settlements = PostgresSettlementStore(pool, settings.lookup_terms, crash_points)
    return settlements if counter is None else CountingSettlementStore(settlements, counter)


async def _token_counter(
    stack: contextlib.AsyncExitStack, settings: MeterSettings, registry: CollectorRegistry
) -> TokenCounter | None:
    """None without Redis: limits of tokens then know of prompts only."""
    if settings.redis_url is None:
        _log.info("token_counting_off")
        return None
    redis = connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_S)
    windows = RedisLimitWindows(redis, SystemClock(), REDIS_TIMEOUT_S)
    stack.push_async_callback(windows.close)
    return TokenCounter(windows, registry)


def _lookups(
    settings: MeterSettings,
    pool: PostgresPool,
    endings: SettlementStore,
    find_usage: FindUsage,
    metrics: IngestMetrics,
    registry: CollectorRegistry,
    crash_points: CrashPoints,
) -> LookupWorker:
    return LookupWorker(
        LookupQueue(pool, settings.lookup_terms),
        endings,
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
    sweeping: SweepStore,
    registry: CollectorRegistry,
    crash_points: CrashPoints,
) -> AccessLogFile | None:
    if settings.envoy_access_log is None:
        return None

    async def note_undecided(requests: list[UndecidedRequest]) -> None:
        await sweeping.note_undecided([request.request_id for request in requests])

    return AccessLogFile(
        settings.envoy_access_log,
        LogPositionStore(pool),
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
