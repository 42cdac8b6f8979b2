"""The parts of a running meter that end holds: the logs, look-ups and the sweep."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry

from meter.clock import SystemClock
from meter.errors import ProviderUnavailable
from meter.holds.sweep import Sweep
from meter.holds.sweep_store import SweepStore
from meter.ingest.batcher import Batcher
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.ingest.log_file.follower import STREAM_LEAD_S
from meter.ingest.log_file.log_file import AccessLogFile
from meter.ingest.log_file.metrics import FileMetrics
from meter.ingest.log_file.position_store import LogPositionStore
from meter.ingest.metrics import IngestMetrics
from meter.ingest.stream.server import STOP_GRACE_S, AccessLogService, build_server
from meter.ledger.usage_days import UsageDays
from meter.limits.redis_windows import RedisLimitWindows, connect
from meter.lookups.queue import LookupQueue
from meter.lookups.samples import RecordSamples, SampledSettlementStore
from meter.lookups.worker import FindOwnUsage, FindUsage, LookupMetrics, LookupWorker
from meter.postgres.pool import KEYED_SESSION, PostgresPool, open_pool
from meter.process.background import background
from meter.process.crash_points import CrashPoints
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys
from meter.providers.own_key_refusals import OwnKeyRefusals
from meter.providers.providers import Providers
from meter.providers.registry import ProviderRegistry
from meter.settings import MeterSettings
from meter.settlement.measured_excess import MeasuredExcesses
from meter.settlement.parked import ParkedEndings
from meter.settlement.parked_store import ParkedEndingStore
from meter.settlement.port import SettlementStore
from meter.settlement.settlement_store import PostgresSettlementStore
from meter.settlement.token_counting import CountingSettlementStore, TokenCounter
from meter.settlement.usual_use_store import UsualUses
from meter.usage.usage import ReportedUsage

SETTLEMENT_CONNECTIONS: Final = 2
LOOKUP_CONNECTIONS: Final = 4
REDIS_TIMEOUT_S: Final = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunningSettlement:
    """The parts of a running meter that end holds.

    `tasks` must not end by themselves. `file` is the reader of the access-log file, and `counter`
    reports tokens to the limits; each is None where the settings have none.
    """

    tasks: tuple[asyncio.Task[None], ...]
    file: AccessLogFile | None
    counter: TokenCounter | None


@contextlib.asynccontextmanager
async def run_settlement(
    settings: MeterSettings,
    pool: PostgresPool,
    keys: PostgresProviderKeys,
    providers: Providers,
    registry: CollectorRegistry,
    crash_points: CrashPoints,
) -> AsyncIterator[RunningSettlement]:
    """Run every part that ends holds. At the end stop reading, then settle what has arrived.

    Raises OSError when the access-log service cannot listen.
    """
    dsn = settings.database_url.get_secret_value()
    clock = SystemClock()
    metrics = IngestMetrics(registry)
    tasks: list[asyncio.Task[None]] = []
    # The stack closes in the reverse order, so each part is entered before those that use it.
    async with contextlib.AsyncExitStack() as stack:

        async def open_keyed_pool(most_connections: int) -> PostgresPool:
            opened = await open_pool(dsn, most_connections, KEYED_SESSION)
            stack.push_async_callback(opened.close)
            return opened

        async def run(name: str, work: Coroutine[None, None, None]) -> None:
            tasks.append(await stack.enter_async_context(background(name, work)))

        counter = None
        if settings.redis_url is None:
            _log.info("token_counting_off")
        else:
            redis = connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_S)
            windows = RedisLimitWindows(redis, clock, REDIS_TIMEOUT_S)
            stack.push_async_callback(windows.close)
            counter = TokenCounter(windows, registry)
            await run("token counting", counter.run())

        uses = UsualUses(pool, registry)
        await run("usual use", uses.run())
        excesses = MeasuredExcesses(pool, registry)
        await run("measured excess", excesses.run())
        await run("usage by day", UsageDays(pool).run())

        refusals = OwnKeyRefusals(pool, registry)
        await run("own key refusals", refusals.run())

        def settlements_through(pool: PostgresPool) -> SettlementStore:
            store = PostgresSettlementStore(
                pool,
                settings.lookup_terms,
                crash_points,
                uses,
                excesses,
                providers.registry.billing,
                refusals.note,
            )
            return store if counter is None else CountingSettlementStore(store, counter)

        settlement_pool = await open_keyed_pool(SETTLEMENT_CONNECTIONS)
        settlements = settlements_through(settlement_pool)
        parked = ParkedEndings(
            ParkedEndingStore(settlement_pool), settlements, metrics.count, registry, crash_points
        )
        worker = samples = None
        logged: SettlementStore = settlements
        if settings.lookups_per_second > 0:
            # Pools of their own, so that many look-ups never keep the logs from being settled.
            lookup_pool = await open_keyed_pool(LOOKUP_CONNECTIONS)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            looked_up = settlements_through(lookup_pool)
            find_usage = _usage_finder(session, providers.registry, keys)
            worker = LookupWorker(
                LookupQueue(lookup_pool, settings.lookup_terms, providers.default.id),
                looked_up,
                find_usage,
                clock,
                LookupMetrics(registry),
                metrics.count,
                crash_points,
                per_second=settings.lookups_per_second,
                has_reports=settings.provider_reports,
                find_own_usage=_own_usage_finder(session, providers.registry, keys),
                terms_of=providers.registry.billing,
            )
            samples = RecordSamples(
                looked_up,
                find_usage,
                clock,
                registry,
                metrics.count,
                settings.record_sample_share,
                settings.record_samples_per_second,
            )
            logged = SampledSettlementStore(settlements, samples)
        batcher = Batcher(logged, metrics, on_answered=providers.keys.note_request)
        sweep_store = SweepStore(pool, settings.lookup_terms.patience, crash_points)
        file = None
        logs = settings.access_logs
        if logs.has_file and settings.envoy_access_log is not None:
            file = AccessLogFile(
                settings.envoy_access_log,
                LogPositionStore(pool),
                batcher,
                sweep_store.note_undecided,
                FileMetrics(registry),
                clock,
                crash_points,
                None if settings.envoy_admin is None else EnvoyAdmin(settings.envoy_admin),
                stream_lead_s=STREAM_LEAD_S if logs.has_stream else 0.0,
            )

        tasks.append(await stack.enter_async_context(_settling(batcher)))
        if logs.has_stream:
            service = AccessLogService(batcher, metrics)
            await stack.enter_async_context(_receiving(settings.ingest_listen, service))
        await run("parked endings", parked.run())
        await run("sweep", Sweep(sweep_store, settings.sweep_every_s, registry).run())
        if worker is not None:
            await run("look-ups", worker.run())
        if samples is not None:
            await run("record samples", samples.run())
        if file is not None:
            await run("access-log file", file.run())
        yield RunningSettlement(tuple(tasks), file, counter)


def _usage_finder(
    session: aiohttp.ClientSession, providers: ProviderRegistry, keys: PostgresProviderKeys
) -> FindUsage:
    """Return the function that asks a provider for a generation, with the system's own key."""

    async def find_usage(provider_id: str, generation_id: str) -> ReportedUsage | None:
        provider = providers.find(provider_id)
        fetch_generation = None if provider is None else provider.dialect.fetch_generation
        if provider is None or fetch_generation is None:
            return None
        key = await keys.find_key(provider_id, SYSTEM_OWNER)
        if key is None:
            raise ProviderUnavailable(f"no key of {provider_id} is set")
        record = await fetch_generation(session, provider.base_url, key.plain, generation_id)
        return None if record is None else record.usage

    return find_usage


def _own_usage_finder(
    session: aiohttp.ClientSession, providers: ProviderRegistry, keys: PostgresProviderKeys
) -> FindOwnUsage:
    """Return the function that asks a provider for a generation, with the key of its owner."""

    async def find_usage(
        account_id: str, provider_id: str, generation_id: str
    ) -> ReportedUsage | None:
        key = (await keys.find_own_keys(account_id)).get(provider_id)
        if key is None or key.plain is None:
            return None
        provider = providers.find(provider_id)
        fetch = None if provider is None else provider.dialect.fetch_generation
        if provider is None or fetch is None:
            return None
        record = await fetch(session, provider.base_url, key.plain, generation_id)
        return None if record is None else record.usage

    return find_usage


@contextlib.asynccontextmanager
async def _settling(batcher: Batcher) -> AsyncIterator[asyncio.Task[None]]:
    """Settle what the logs bring. At the end settle what has arrived."""
    task = batcher.start()
    try:
        yield task
    finally:
        await batcher.drain()


@contextlib.asynccontextmanager
async def _receiving(listen: str, service: AccessLogService) -> AsyncIterator[None]:
    """Receive the log stream; raises OSError where nothing can listen there."""
    server = build_server(service, listen)
    await server.start()
    try:
        yield
    finally:
        await server.stop(STOP_GRACE_S)
