"""What the supervisor starts and watches, described without saying how."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Component:
    """One process that has to run as long as the stack does.

    `stop_signal` asks it to end and leaves it `stop_timeout_s` to do so.
    `death_signal` is what the kernel sends it when the supervisor is gone and
    nobody is left to insist.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Probe = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    start_timeout_s: float = START_TIMEOUT_S
    stop_timeout_s: float = STOP_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Step:
    """Work to be done once between components, such as applying migrations."""

    name: str
    run: Callable[[], Awaitable[None]] = field(repr=False)


# What stands in one phase starts side by side; phases follow one another.
Phase = tuple[Component | Step, ...]
