"""The CPU that one request may take, by process, and how a measurement compares.

A budget is what a process takes on a quiet machine, in units (`calibration.py`), so that it holds
on any machine. A process that needs a quarter more has become slower, and not the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# At 16 connections, with everything on; the components of a stack by their names. `make bench` on
# 2026-11-30, quiet machine: 395, 206, 125 and 63 us, with a unit of 4.71 us.
REQUEST_UNITS: Final[Mapping[str, float]] = {
    "envoy": 84,
    "authz": 44,
    "postgres": 27,
    "meter": 14,
}
# A decision alone, without sockets, Postgres and Redis: `python -m bench.deciding`.
DECISION_UNITS: Final = 18.0
# A request that is held, read from both logs and settled: `python -m bench.booking`. Each process
# has a unit of its own, a piece of SQL and a piece of Python.
BOOKING_UNITS: Final[Mapping[str, float]] = {"postgres": 0.78, "meter": 11.5}
TOLERANCE: Final = 1.25


@dataclass(frozen=True, slots=True)
class Spent:
    """The CPU that a process spent on a request, in units, beside its budget."""

    units: float
    budget_units: float

    @property
    def is_over(self) -> bool:
        """Return whether the process needs more than its budget and a quarter of it."""
        return self.units > self.budget_units * TOLERANCE


def compare(cpu_us: Mapping[str, float], unit_us: float) -> dict[str, Spent]:
    """Return what each process with a budget spent; `cpu_us` has microseconds by process."""
    return {
        name: Spent(round(cpu_us[name] / unit_us, 1), budget)
        for name, budget in REQUEST_UNITS.items()
        if name in cpu_us
    }
