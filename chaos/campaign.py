"""One campaign from the first process to the verdict."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp

from chaos.checker import Verdict, Witnesses, check
from chaos.controls import break_rule, control_faults, settings_without
from chaos.customers import Administrator
from chaos.failover.providers import Fleet
from chaos.further.setting import maybe_fleet, set_up
from chaos.load import Crowd
from chaos.nemesis import Nemesis
from chaos.quiescence import wait_quiet
from chaos.records import Records
from chaos.report import Report
from chaos.requests import behaviours, requests
from chaos.schedule import Fault, schedule, to_text
from chaos.stack import ChaosStack, chaos_environment
from chaos.upstream import Upstream
from meter.ingest.access_logs import AccessLogs

QUIET_MOST_S: Final = 300.0
CONTROL_QUIET_MOST_S: Final = 4.0
CRASH_FOLDER: Final = "crash-points"
KEPT_FOLDER: Final = "taken-from-the-log"
# Short times, so that what takes an hour in earnest is over in a minute.
SETTINGS: Final = {
    "TOLLKEEPER_AUTHZ_HOLD_LIFETIME_S": "60",
    "TOLLKEEPER_LOOKUP_FIRST_DELAY_S": "1",
    "TOLLKEEPER_LOOKUP_PATIENCE_S": "25",
    "TOLLKEEPER_LOOKUPS_PER_SECOND": "200",
    "TOLLKEEPER_PROVIDER_REPORTS": "true",
    "SIMULATOR_GENERATION_DELAY_MS": "500",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The terms of a campaign. `folder` holds the state and is removed where nothing failed.

    `without` names a rule that is switched off; nothing but the fault that it is for goes wrong
    then, and the checker is asked soon after. `has_reports` says that the upstream reports what it
    bills; `has_billed_failures` that it bills some errors, as providers may. `access_logs` are the
    logs that Envoy writes. `has_further` adds two providers and accounts with own keys.
    """

    seed: int
    minutes: float
    per_second: float
    folder: Path
    without: str | None = None
    instances: int = 2
    has_reports: bool = True
    has_billed_failures: bool = True
    access_logs: str = AccessLogs.BOTH
    has_further: bool = False

    @property
    def load_s(self) -> float:
        """The time for which requests are sent."""
        return self.minutes * 60

    @property
    def command(self) -> str:
        """The command that does the same again."""
        words = f"python -m chaos --minutes {self.minutes:g} --seed {self.seed}"
        words += f" --rate {self.per_second:g} --instances {self.instances}"
        words += "" if self.has_reports else " --no-reports"
        words += "" if self.has_billed_failures else " --free-failures"
        words += "" if self.access_logs == AccessLogs.BOTH else f" --access-logs {self.access_logs}"
        words += " --providers" if self.has_further else ""
        return words if self.without is None else f"{words} --without {self.without}"

    def faults(self) -> list[Fault]:
        """Return the faults of this campaign."""
        if self.without is not None:
            return control_faults(self.without, self.load_s)
        return schedule(self.seed, self.load_s)


@dataclass(slots=True)
class _Running:
    """The parts of a campaign while it goes on."""

    plan: Plan
    stack: ChaosStack
    session: aiohttp.ClientSession = field(repr=False)
    records: Records
    began_at: datetime
    fleet: Fleet | None

    async def run(self) -> Report:
        await break_rule(self.stack, self.plan.without)
        administrator = Administrator(self.stack, self.session)
        customers = await administrator.open_accounts()
        upstream = Upstream(self.stack.endpoint("simulator"), self.session)
        how = behaviours(self.plan.has_billed_failures, self.plan.has_reports)
        further = None
        if self.fleet is not None:
            further = await set_up(
                self.fleet, self.stack, self.session, administrator, customers, how
            )
        upstreams = [upstream, *(further.upstreams if further else ())]
        await upstream.behave(how)
        folder = self.plan.folder
        nemesis = Nemesis(self.stack, folder / CRASH_FOLDER, folder / KEPT_FOLDER)
        crowd = Crowd(self.stack.endpoint("gateway"), self.session, self.records)
        asking = requests(self.plan.seed, customers)
        async with _meanwhile(
            *(one.watch() for one in upstreams),
            administrator.keep_poor_alive(customers, self.plan.seed),
        ):
            await asyncio.gather(
                nemesis.strike(self.plan.faults()),
                crowd.press(asking, self.plan.per_second, self.plan.load_s),
            )
        is_control = self.plan.without is not None
        quiet_s = await wait_quiet(self.stack, CONTROL_QUIET_MOST_S if is_control else QUIET_MOST_S)
        for one in upstreams:
            await one.look()
        witnesses = Witnesses(
            customers,
            administrator.given,
            self.records.seen,
            [arrival for one in upstreams for arrival in one.arrivals],
            sum(one.missed for one in upstreams),
            self.plan.has_reports,
            further.bills() if further else {},
            further.own_keys if further else (),
        )
        verdict = await check(self.stack, witnesses, folder / KEPT_FOLDER)
        return self._report(nemesis, quiet_s, verdict)

    def _report(self, nemesis: Nemesis, quiet_s: float, verdict: Verdict) -> Report:
        return Report(
            seed=self.plan.seed,
            minutes=self.plan.minutes,
            command=self.plan.command,
            began_at=self.began_at.isoformat(timespec="seconds"),
            seen=self.records.seen,
            kills=nemesis.processes.kills,
            others=nemesis.others,
            recoveries_s=nemesis.processes.recoveries_s,
            quiet_after_s=quiet_s,
            verdict=verdict,
        )


async def run_campaign(plan: Plan) -> Report:
    """Start a stack, attack it, judge it and end it. Its folder stays when something is wrong."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / CRASH_FOLDER).mkdir()
    (plan.folder / "schedule.jsonl").write_text(to_text(plan.faults()))
    records = Records(plan.folder / "clients.jsonl")
    stack = _stack(plan)
    with maybe_fleet(plan.folder, plan.has_further) as fleet:
        try:
            await asyncio.to_thread(stack.up)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                began_at = datetime.fromtimestamp(time.time(), UTC)
                report = await _Running(plan, stack, session, records, began_at, fleet).run()
        finally:
            records.close()
            await asyncio.to_thread(stack.down)
    if report.verdict.is_right:
        shutil.rmtree(plan.folder, ignore_errors=True)
    return report


def _stack(plan: Plan) -> ChaosStack:
    home = plan.folder / "home"
    settings = {
        **SETTINGS,
        "TOLLKEEPER_CRASH_FOLDER": str(plan.folder / CRASH_FOLDER),
        "TOLLKEEPER_PROVIDER_REPORTS": "true" if plan.has_reports else "false",
        "TOLLKEEPER_ACCESS_LOGS": plan.access_logs,
    }
    environment = chaos_environment(home, {**settings, **settings_without(plan.without)})
    return ChaosStack(home, environment, plan.instances)


@contextlib.asynccontextmanager
async def _meanwhile(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """These run inside the block, and are told to end after it; what they raise is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome
