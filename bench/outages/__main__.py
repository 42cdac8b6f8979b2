"""`python -m bench.outages`: what becomes of requests and money while a component is away."""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import aiohttp

from bench.outages.away import Away, disk_full, processes_away, small_disk, stream_away
from bench.outages.measure import Measured, measure, prepare
from chaos.stack import KINDS, ChaosStack, chaos_environment
from tollkeeper.stack.home import locate, open_home

SETTINGS: Final = {
    # In earnest an hour and a quarter of one: here nobody waits for them.
    "TOLLKEEPER_AUTHZ_HOLD_LIFETIME_S": "60",
    "TOLLKEEPER_LOOKUP_PATIENCE_S": "20",
    "TOLLKEEPER_LOOKUPS_PER_SECOND": "100",
}
COMPONENTS: Final[dict[str, Callable[[ChaosStack], Away]]] = {
    "envoy": lambda stack: processes_away(stack, "envoy"),
    "authz-2": lambda stack: processes_away(stack, "authz", how_many=1),
    "authz": lambda stack: processes_away(stack, "authz"),
    "meter-2": lambda stack: processes_away(stack, "meter", how_many=1),
    "meter": lambda stack: processes_away(stack, "meter"),
    "postgres": lambda stack: processes_away(stack, "postgres"),
    "postgres+meter": lambda stack: processes_away(stack, "postgres", "meter"),
    "redis": lambda stack: processes_away(stack, "redis"),
    "provider": lambda stack: processes_away(stack, "simulator"),
    "stream": stream_away,
    "disk": disk_full,
    "all": lambda stack: processes_away(stack, *KINDS),
}
HEAD: Final = (
    *("away", "sent before", "sent meanwhile", "settled meanwhile", "settled afterwards"),
    *("served again", "all settled", "nothing held", "billed", "unsettled", "doubled"),
    *("provisional", "difference"),
)


def main() -> int:
    """Measure and print a row for each component; 1 when books and bill differ at the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.outages", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(COMPONENTS), default=list(COMPONENTS))
    parser.add_argument("--away-seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, help="away for so long instead")
    parser.add_argument("--per-second", type=float, default=20.0, help="requests")
    chosen = parser.parse_args()
    away_s = chosen.minutes * 60 if chosen.minutes else chosen.away_seconds
    print(" | ".join(HEAD))
    return asyncio.run(_measure_all(chosen.only, away_s, chosen.per_second))


async def _measure_all(names: Iterable[str], away_s: float, per_second: float) -> int:
    is_right = True
    with tempfile.TemporaryDirectory(prefix="tk-away-", dir="/tmp") as folder:
        home = Path(folder) / "home"
        open_home(locate(home))
        with small_disk(locate(home).envoy) as has_disk:
            stack = ChaosStack(home, chaos_environment(home, SETTINGS), 2)
            try:
                await asyncio.to_thread(stack.up)
                async with aiohttp.ClientSession() as session:
                    payer = await prepare(stack, session)
                for name in names:
                    if name == "disk" and not has_disk:
                        print("disk: left out, this user may not mount one")
                        continue
                    away = COMPONENTS[name](stack)
                    measured = await measure(stack, payer, name, away, away_s, per_second)
                    print(_row(measured), flush=True)
                    is_right &= measured.balance.is_right
            finally:
                await asyncio.to_thread(stack.down)
    return 0 if is_right else 1


def _row(one: Measured) -> str:
    balance = one.balance
    cells = [
        f"{one.name}, {one.away_s:.0f} s",
        _counts(one.before),
        _counts(one.while_away),
        _counts(one.settled_away),
        _counts(one.settled_back),
        *map(_seconds, (one.served_after_s, one.settled_after_s, one.ended_after_s)),
        *map(str, (balance.billed, balance.unsettled, balance.doubled, balance.provisional)),
        str(balance.difference_picos),
    ]
    return " | ".join(cells)


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counted.items())) or "none"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
