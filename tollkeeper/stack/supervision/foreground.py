"""Envoy as the one child of a command that a container or service manager runs.

Envoy ends at once on SIGTERM, in the middle of streams and with its last log entries unsent.
This takes the signal instead, drains, and then lets Envoy end.
"""

import asyncio
import signal
from collections.abc import Sequence

from meter.process.stopping import stop_event
from tollkeeper.stack.servers.environment import server_environment
from tollkeeper.stack.servers.envoy_admin import EnvoyAdmin
from tollkeeper.stack.supervision.children import die_with_parent
from tollkeeper.stack.supervision.children import stop as stop_child

STOP_TIMEOUT_S = 5.0
# A shell's way to say that a signal ended a program.
SIGNAL_EXIT_BASE = 128


async def run_draining(command: Sequence[str], admin: EnvoyAdmin, drain_s: float) -> int:
    """Run Envoy until it ends or we are asked to end; returns the exit code."""
    stopping = stop_event(signal.SIGTERM, signal.SIGINT)
    envoy = await asyncio.create_subprocess_exec(
        *command,
        env=server_environment(),
        # Of its own session: Ctrl-C at a terminal must reach us alone.
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    ended, asked = asyncio.create_task(envoy.wait()), asyncio.create_task(stopping.wait())
    await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not ended.done():
        draining = asyncio.create_task(admin.drain_if_there(drain_s))
        await asyncio.wait({ended, draining}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        await stop_child(envoy, signal.SIGTERM, STOP_TIMEOUT_S)
    code = await ended
    return code if code >= 0 else SIGNAL_EXIT_BASE - code
