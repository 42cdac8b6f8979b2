"""Descriptions of what the supervisor starts and watches."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

# A component that ends is noticed at once. One that starts may take long on a busy machine, where
# everything starts side by side.
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 15.0

Probe = Callable[[], Awaitable[bool]]
Drain = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Component:
    """One process that has to run as long as the stack does.

    `stop_signal` asks it to end and leaves it `stop_timeout_s` to do so.
    `death_signal` is what the kernel sends it when the supervisor is gone and
    nobody is left to insist.

    `drain` is awaited before `stop_signal`, for a process that ends at once on it.
    `step_aside` makes room for a successor beside the running process, and returns
    how that process is drained when the successor is ready. `is_noticed` says whether
    those who send work here know, after a restart, that it is ready again.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Probe = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    start_timeout_s: float = START_TIMEOUT_S
    stop_timeout_s: float = STOP_TIMEOUT_S
    drain: Drain | None = field(default=None, repr=False)
    step_aside: Callable[[], Drain] | None = field(default=None, repr=False)
    is_noticed: Probe | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """Work to be done once between components, such as applying migrations."""

    name: str
    run: Callable[[], Awaitable[None]] = field(repr=False)


# What stands in one phase starts side by side; phases follow one another.
Phase = tuple[Component | Step, ...]
