"""`tollkeeper up --detach` and `tollkeeper down`: a supervisor without a terminal."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil
import typer

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import find_supervisor, locate, open_home, sole_supervisor
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.leftovers import end_leftovers
from tollkeeper.stack.supervision.logs import last_line, open_log
from tollkeeper.stack.supervision.report import received

# Longer than all components may take to end, one phase after another; Envoy's drain comes on top.
DOWN_TIMEOUT_S = 120.0
EXIT_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 0.05


def start_detached(settings: StackSettings, options: Sequence[str]) -> None:
    """Start a supervisor that runs on after this command; return when everything is up.

    Raises StackError, with the reason, when the stack does not come up.
    """
    home = locate(settings.home)
    open_home(home)
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "tollkeeper", "up", *options, "--report-to", str(writer)]
    log_file = home.logs / "supervisor.log"
    log = open_log(log_file)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(writer,),
        start_new_session=True,
    )
    os.close(writer)
    os.close(log)
    try:
        with os.fdopen(reader) as stream:
            for message in received(stream):
                if message.kind == "failed":
                    raise StackError(message.text)
                typer.echo(message.text)
                if message.kind == "ready":
                    return
        end = last_line(log_file)
        raise StackError(f"The supervisor ended without a message: {end} (see {log_file}).")
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


def bring_down(settings: StackSettings) -> bool:
    """Stop the stack and wait until it has ended; return False when none was running."""
    home = locate(settings.home)
    pid = find_supervisor(home)
    if pid is None:
        # What a killed supervisor left ends by itself; make sure that it has.
        if not home.pid.exists():
            return False
        with sole_supervisor(home):
            return end_leftovers(home) > 0
    try:
        supervisor = psutil.Process(pid)
        supervisor.terminate()
    except psutil.NoSuchProcess:
        return True
    timeout_s = DOWN_TIMEOUT_S + settings.envoy_drain_s
    deadline = time.monotonic() + timeout_s
    while find_supervisor(home) == pid:
        if time.monotonic() > deadline:
            raise StackError(
                f"The supervisor (process {pid}) has not ended after {timeout_s:.0f} s; "
                f"see {home.logs / 'supervisor.log'}, or end it with `kill -9 {pid}`."
            )
        time.sleep(POLL_INTERVAL_S)
    # The lock is let go a moment before the process ends.
    with contextlib.suppress(psutil.TimeoutExpired):
        supervisor.wait(EXIT_TIMEOUT_S)
    return True
