"""Starting and ending processes that must never outlive us."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.supervision.logs import last_line, open_log

STEP_TIMEOUT_S = 300.0
_PR_SET_PDEATHSIG = 1


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` that asks the kernel to signal the child when the parent is gone.

    A parent killed with SIGKILL cannot clean up after itself; the kernel can.
    Only Linux knows this; elsewhere the function does nothing.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        # The parent may have died before the request above was made.
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


async def spawn(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    log: Path,
    death_signal: signal.Signals = signal.SIGKILL,
    stdin: int = subprocess.DEVNULL,
) -> asyncio.subprocess.Process:
    """Start a process that logs to `log`.

    It gets a session of its own, so that Ctrl-C at the terminal reaches only the
    supervisor. Raises StackError when the program cannot be started.
    """
    output = open_log(log)
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=die_with_parent(death_signal),
        )
    except OSError as error:
        raise StackError(f"{command[0]} cannot be started: {error.strerror}.") from error
    finally:
        os.close(output)


async def stop(
    process: asyncio.subprocess.Process, stop_signal: signal.Signals, timeout_s: float
) -> None:
    """Ask a process to end; insist with SIGKILL when it has not after `timeout_s`."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(stop_signal)
    try:
        await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        kill_group(process)
        await process.wait()


def kill_group(process: asyncio.subprocess.Process) -> None:
    """SIGKILL a process and what it started in its own group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def run_to_end(
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    log: Path,
    stdin: str = "",
    timeout_s: float = STEP_TIMEOUT_S,
) -> None:
    """Run a program that does one thing; what it reads from stdin may be secret.

    Raises StackError with its last words when it fails or takes too long.
    """
    process = await spawn(command, environment, log, stdin=subprocess.PIPE)
    try:
        await asyncio.wait_for(process.communicate(stdin.encode()), timeout_s)
    except (TimeoutError, asyncio.CancelledError) as error:
        kill_group(process)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise StackError(f"{name} was not done after {timeout_s:g} s (see {log}).") from None
        raise
    if process.returncode != 0:
        raise StackError(
            f"{name} {describe_exit(process.returncode)}: {last_line(log)} (see {log})."
        )


def describe_exit(code: int | None) -> str:
    """Return how a process ended, in words."""
    if code is None:
        return "still runs"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
