"""`tollkeeper up`: bring the stack up, keep it up, bring it down."""

import asyncio
import signal
import time
from collections.abc import Iterable

from meter.process.stopping import stop_event
from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import locate, open_home, read_operator_token, sole_supervisor
from tollkeeper.stack.servers import demo
from tollkeeper.stack.servers.ports import LOOPBACK, require_free
from tollkeeper.stack.servers.topology import Topology, design
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.control import listening
from tollkeeper.stack.supervision.leftovers import end_leftovers
from tollkeeper.stack.supervision.probes import seconds_since
from tollkeeper.stack.supervision.report import Reporter
from tollkeeper.stack.supervision.status import StatusFile
from tollkeeper.stack.supervision.supervisor import Supervisor

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(settings: StackSettings, reporter: Reporter) -> None:
    """Run the stack in this process until a signal ends it.

    Raises StackError when it cannot be brought up; nothing is left running then.
    """
    home = locate(settings.home)
    open_home(home)
    with sole_supervisor(home):
        if end_leftovers(home):
            reporter.line("stopped processes that an earlier run had left")
        require_free(settings.address, settings.port, "TOLLKEEPER_PORT")
        require_free(LOOPBACK, settings.api_port, "TOLLKEEPER_API_PORT")
        asyncio.run(_run(design(home, settings), reporter))


async def _run(topology: Topology, reporter: Reporter) -> None:
    home = topology.home
    status = StatusFile(home.status, topology.endpoints)
    supervisor = Supervisor(topology.phases(), home.logs, status, reporter.line)
    stopping = stop_event(*STOP_SIGNALS)
    life = asyncio.create_task(_live(topology, supervisor, reporter))
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
        reporter.line("stopping ...")
    finally:
        life.cancel()
        waiting.cancel()
        await asyncio.gather(life, waiting, return_exceptions=True)
        await supervisor.stop()
    reporter.line("stopped; `make up` starts it again")


async def _live(topology: Topology, supervisor: Supervisor, reporter: Reporter) -> None:
    began = time.monotonic()
    reporter.line(f"state folder {topology.home.root}")
    if topology.simulator_port:
        reporter.line(
            "OPENROUTER_API_KEY is not set: answers come from the built-in SIMULATOR, "
            "not from real models"
        )
    else:
        reporter.line(f"upstream is {topology.provider_base_url}")
    if topology.stripe_port:
        reporter.line("credit is sold through a SIMULATOR of Stripe: no money moves")
    await supervisor.start()
    token = read_operator_token(topology.settings.operator_token, topology.home)
    if token is None:
        raise StackError(f"{topology.home.operator_token} cannot be read any more.")
    operator = demo.Operator(topology.endpoints["api"], token)
    key = await demo.ensure_demo_key(operator, topology.home.demo_key)
    model = await demo.cheap_model(topology.endpoints["gateway"])
    text = "\n".join(_summary(topology, key, model, reporter.is_detached))
    async with listening(topology.home, supervisor):
        reporter.ready(f"everything is up after {seconds_since(began)}\n\n{text}")
        await supervisor.watch()


def _summary(topology: Topology, key: str, model: str | None, is_detached: bool) -> Iterable[str]:
    endpoints, home = topology.endpoints, topology.home
    yield f"  gateway         {endpoints['gateway']}/v1"
    yield f"  meter API       {endpoints['api']}/docs"
    if topology.simulator_port:
        yield f"  simulator       {endpoints['simulator']} (bill: {home.simulator / 'bill.jsonl'})"
        yield "                  other providers to try: `tollkeeper status`"
    if topology.stripe_port:
        yield f"  Stripe          {endpoints['stripe']} (simulator)"
    is_given = topology.settings.operator_token is not None
    yield f"  operator token  {'as given' if is_given else home.operator_token}"
    yield f"  demo API key    {key}"
    yield ""
    if model is None:
        yield "The catalogue holds no model yet; `tollkeeper models` shows it."
        return
    yield "Try it:"
    yield ""
    yield f"  curl {endpoints['gateway']}/v1/chat/completions \\"
    yield f"    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\"
    yield (
        f'    -d \'{{"model": "{model}", "max_tokens": 50, '
        '"messages": [{"role": "user", "content": "Hello"}]}\''
    )
    yield ""
    if topology.stripe_port:
        yield "Buy credit, on a page that takes test cards:"
        yield ""
        yield "  tollkeeper payments checkout demo 25.00"
        yield ""
    stops = "`make down` stops it" if is_detached else "Ctrl-C here or `make down` stops it"
    yield f"`make status` shows its state; {stops}."
