"""A unit of CPU that other machines can be compared in.

The same code takes other microseconds on another machine, or on this one while it is busy: caches
and the clock of the processor are shared. So CPU is stated in rounds of a fixed piece of Python
that does what a service does: calls, attributes, dicts, text and JSON.
"""

import json
import time
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 200
_TEXT: Final = json.dumps(
    {"model": "acme/one", "n": 1, "messages": [{"role": "user", "content": "Good day. " * 8}]}
)


@dataclass(frozen=True, slots=True)
class _Seen:
    name: str
    size: int


def unit_us(rounds: int = ROUNDS) -> float:
    """Return the CPU microseconds of one round, measured now: the mean of so many."""
    began_s = time.process_time()
    for number in range(rounds):
        _round(number)
    return (time.process_time() - began_s) / rounds * 1e6


def best_unit_us(times: int = 20) -> float:
    """Return the least of several measurements, which nothing disturbed."""
    return min(unit_us() for _ in range(times))


def _round(number: int) -> int:
    members = json.loads(_TEXT)
    seen = [_Seen(name, len(name)) for name in members]
    by_name = {one.name: one.size for one in seen}
    text = ",".join(f"{name}={size}" for name, size in sorted(by_name.items()))
    return sum(map(len, text.split(","))) + number
