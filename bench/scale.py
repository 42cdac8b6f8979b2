"""`python -m bench --scale`: throughput, CPU and memory where there is more of something.

One quantity changes at a time: instances, accounts, bytes of a body, events of a stream, streams
that are open at once. The rest stays as in the other rows.
"""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import aiohttp.web
import asyncpg

from bench import static
from bench.load import (
    BODY,
    PATH,
    Slice,
    median,
    run_slice,
    write_script,
    write_script_of_body,
    write_scripts_of_many,
)
from bench.processes import cpu_seconds, envoy_running, memory_mib
from bench.settling import settle_rates
from bench.stack import BenchStack, running_stack
from meter.identity.keys.key_text import Pepper, mint
from tollkeeper.stack.home import locate
from tollkeeper.stack.servers.ports import free_port

CONNECTIONS: Final = 16
WARM_UP_S: Final = 2
SLICE_S: Final = 2
INSTANCES: Final = (1, 2, 4)
ACCOUNTS: Final = (1, 100, 10_000, 100_000)
# Of ten requests, nine are the hot account's.
HOT_SHARE: Final = 9
BODY_BYTES: Final = (1_000, 100_000, 5_000_000)
EVENTS: Final = (10, 100, 1_000, 10_000)
OPEN_STREAMS: Final = (100, 1_000)
HISTORIES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
BALANCE_PICOS: Final = 10**15

Say = Callable[[str], None]
Row = dict[str, Any]


async def _instances(slices: int, say: Say) -> list[Row]:
    rows = []
    for instances in INSTANCES:
        async with _static_stack(instances) as (stack, folder):
            script = folder / "ask.lua"
            write_script(script, stack.key)
            rows.append({"instances": instances, **_row(stack, script, slices, say)})
    return rows


@contextlib.asynccontextmanager
async def _static_stack(
    instances: int, events: int | None = None
) -> AsyncIterator[tuple[BenchStack, Path]]:
    with tempfile.TemporaryDirectory(prefix="tks-", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        config = folder / "upstream.yaml"
        static.write_upstream(config, port, events)
        with envoy_running(config, port):
            async with running_stack(folder / "home", port, instances=instances) as stack:
                yield stack, folder


def _row(stack: BenchStack, script: Path, slices: int, say: Say) -> Row:
    """Requests a second, latency, and CPU of each component with all its instances."""
    url = stack.gateway + PATH
    run_slice(url, script, CONNECTIONS, WARM_UP_S)
    stack.wait_until_settled()
    before = cpu_seconds(stack.processes())
    taken: list[Slice] = [run_slice(url, script, CONNECTIONS, SLICE_S) for _ in range(slices)]
    stack.wait_until_settled()
    after = cpu_seconds(stack.processes())
    asked = sum(each.requests for each in taken)
    cpu: dict[str, float] = {}
    for name in after:
        component = name.split("-")[0]
        cpu[component] = cpu.get(component, 0.0) + (after[name] - before[name]) / asked * 1e6
    row = {
        "per_second": round(median([each.per_second for each in taken])),
        "p50_ms": round(median([each.p50_ms for each in taken]), 2),
        "p99_ms": round(median([each.p99_ms for each in taken]), 2),
        "refused": sum(each.failed for each in taken),
        "cpu_us": {component: round(spent) for component, spent in cpu.items()},
    }
    say(str(row))
    return row


async def _bodies(slices: int, say: Say) -> list[Row]:
    rows = []
    async with _static_stack(1) as (stack, folder):
        for size in BODY_BYTES:
            body = json.loads(BODY)
            body["messages"][0]["content"] = "Good day. " * (size // 10)
            script = folder / f"body-{size}.lua"
            write_script_of_body(script, stack.key, json.dumps(body))
            rows.append({"bytes": size, **_row(stack, script, slices, say)})
    return rows


async def _accounts(slices: int, say: Say) -> list[Row]:
    async with _static_stack(1) as (stack, folder):
        return await _by_accounts(stack, folder, slices, say)


async def _by_accounts(stack: BenchStack, folder: Path, slices: int, say: Say) -> list[Row]:
    rows = []
    master_key = bytes.fromhex(locate(stack.home).master_key.read_text().strip())
    keys: list[str] = []
    for count in ACCOUNTS:
        keys += await _copy_accounts(stack, Pepper.from_master_key(master_key), len(keys), count)
        uniform = write_scripts_of_many(folder / f"accounts-{count}.lua", keys)
        rows.append({"accounts": count, "load": "uniform", **_row(stack, uniform, slices, say)})
        if count > 1:
            # The hot one comes between, so that wrk's one pass over the file mixes them.
            turns = [one for key in keys[1:] for one in [keys[0]] * HOT_SHARE + [key]]
            hot = write_scripts_of_many(folder / f"hot-{count}.lua", turns)
            rows.append({"accounts": count, "load": "one hot", **_row(stack, hot, slices, say)})
    return rows


async def _copy_accounts(stack: BenchStack, pepper: Pepper, first: int, end: int) -> Sequence[str]:
    """Copy the account of the bench and its key; return the keys of the copies.

    Their balance is written without a posting, so this database's books are not to be verified.
    """
    minted = [mint() for _ in range(first, end)]
    names = [f"copy-{number}" for number in range(first, end)]
    ids = [key.credential_id for key in minted]
    connection = await asyncpg.connect(stack.database)
    try:
        for table, changes, source in (
            (
                "accounts",
                "jsonb_build_object('id', name, 'email', name || '@example.com', 'held_picos', 0,"
                f" 'overdrawn_picos', 0, 'balance_picos', {BALANCE_PICOS})",
                "id = 'bench'",
            ),
            (
                "credentials",
                "jsonb_build_object('id', key_id, 'account_id', name, 'prefix', 'tk-' || key_id)",
                "account_id = 'bench'",
            ),
        ):
            await connection.execute(
                f"""
                INSERT INTO {table}
                SELECT (jsonb_populate_record(NULL::{table}, row || {changes})).*
                FROM unnest($1::text[], $2::text[]) AS made (name, key_id),
                     (SELECT to_jsonb({table}) AS row FROM {table} WHERE {source} LIMIT 1) AS one
                """,
                names,
                ids,
            )
        await connection.copy_records_to_table(
            "credential_secrets",
            records=[(pepper.digest(key.plain.reveal()), key.credential_id) for key in minted],
            columns=["digest", "credential_id"],
        )
        await connection.execute("ANALYZE accounts, credentials, credential_secrets")
    finally:
        await connection.close()
    return [key.plain.reveal() for key in minted]


async def _events(slices: int, say: Say) -> list[Row]:
    rows = []
    asked = json.dumps({**json.loads(BODY), "stream": True})
    for events in EVENTS:
        async with _static_stack(1, events) as (stack, folder):
            script = folder / "stream.lua"
            write_script_of_body(script, stack.key, asked)
            rows.append({"events": events, **_row(stack, script, slices, say)})
    return rows


async def _open_streams(_: int, say: Say) -> list[Row]:
    """Memory of each process before, and while so many streams are open."""
    upstream = _Upstream()
    with tempfile.TemporaryDirectory(prefix="tks-", dir="/tmp") as name:
        async with upstream.serving() as port, running_stack(Path(name) / "home", port) as stack:
            rows: list[Row] = [{"streams": 0, "mib": memory_mib(stack.processes())}]
            headers = {
                "authorization": f"Bearer {stack.key}",
                "content-type": "application/json",
            }
            asked = json.dumps({**json.loads(BODY), "stream": True})
            async with aiohttp.ClientSession(
                headers=headers, connector=aiohttp.TCPConnector(limit=0)
            ) as session:
                opened: list[aiohttp.ClientResponse] = []
                for count in OPEN_STREAMS:
                    while len(opened) < count:
                        reply = await session.post(stack.gateway + PATH, data=asked)
                        reply.raise_for_status()
                        await reply.content.readany()
                        opened.append(reply)
                    rows.append({"streams": count, "mib": memory_mib(stack.processes())})
                    say(str(rows[-1]))
                upstream.may_end.set()
                for reply in opened:
                    await reply.read()
            await asyncio.to_thread(stack.wait_until_settled)
    return rows


class _Upstream:
    """A provider that begins a stream at once and ends it when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Yields the port."""
        app = aiohttp.web.Application()
        app.router.add_get("/api/v1/models", self._list_models)
        app.router.add_post("/api/v1/chat/completions", self._answer)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", port, backlog=1_024).start()
        try:
            yield port
        finally:
            await runner.cleanup()

    async def _list_models(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response(static.CATALOGUE)

    async def _answer(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        await request.read()
        reply = aiohttp.web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        begin, end = static.stream_of(2).split("\n\n", 1)
        await reply.write(f"{begin}\n\n".encode())
        await self.may_end.wait()
        await reply.write(end.encode())
        await reply.write_eof()
        return reply


async def _ledger_entries(_: int, say: Say) -> list[Row]:
    rounds = await asyncio.to_thread(settle_rates, HISTORIES, say)
    return [
        {
            "entries": entries,
            "settled_per_second": round(median([each.per_second for each in taken])),
            "cpu_us": {
                "meter": min(each.meter_us for each in taken),
                "postgres": min(each.postgres_us for each in taken),
            },
        }
        for entries, taken in rounds.items()
    ]


# What grows, and how it is measured, with so many slices of load.
QUANTITIES: Final[Mapping[str, Callable[[int, Say], Coroutine[None, None, list[Row]]]]] = {
    "instances": _instances,
    "body_bytes": _bodies,
    "accounts": _accounts,
    "events": _events,
    "open_streams": _open_streams,
    "ledger_entries": _ledger_entries,
}
