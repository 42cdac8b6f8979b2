"""`python -m bench.versus CLONE`: compare the speed of this clone with that of another one.

Both whole systems run before one static upstream, and slices of load alternate between them, so
that other work on the machine affects both equally. A process that is compared with an older run
of itself on a shared machine shows the machine; paired slices show the code.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from bench.budgets import compare
from bench.calibration import best_unit_us
from bench.gateway import CONNECTIONS, CPU_CONNECTIONS, SLICE_S, plain
from bench.load import PATH, LoadGeneratorMissing, median, run_slice, write_script
from bench.processes import cpu_seconds
from bench.stack import BenchStack, running_stack


def main() -> int:
    """Print the ratio of throughputs, this clone to the other, and both CPUs per request."""
    parser = argparse.ArgumentParser(prog="python -m bench.versus", description=__doc__)
    parser.add_argument("clone", type=Path, help="the folder of another clone, after `make setup`")
    parser.add_argument("--slices", type=int, default=9, help="one-second slices of each")
    chosen = parser.parse_args()
    try:
        asyncio.run(_compare(chosen.clone.resolve(), chosen.slices))
    except LoadGeneratorMissing as error:
        print(f"versus: {error}", file=sys.stderr)
        return 1
    return 0


async def _compare(other: Path, slices: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tkv-", dir="/tmp") as folder, plain(folder) as ports:
        upstream_port, _ = ports
        home = Path(folder)
        async with (
            running_stack(home / "new", upstream_port) as new,
            running_stack(home / "old", upstream_port, other) as old,
        ):
            sides = [(new, home / "new.lua"), (old, home / "old.lua")]
            for stack, script in sides:
                write_script(script, stack.key)
                run_slice(stack.gateway + PATH, script, CPU_CONNECTIONS, SLICE_S)
            print("connections | this/s | other/s | ratio (quartiles)")
            for connections in CONNECTIONS:
                _print_throughput(sides, connections, slices)
            for (stack, script), name in zip(sides, ("this", "other"), strict=True):
                cpu_us, unit = _cpu_us(stack, script, slices), best_unit_us()
                units = {part: spent.units for part, spent in compare(cpu_us, unit).items()}
                print(f"CPU us per request, {name}: {cpu_us}; in units of {unit:.2f} us: {units}")


def _print_throughput(sides: list[tuple[BenchStack, Path]], connections: int, slices: int) -> None:
    rates: list[list[float]] = []
    for turn in range(slices):
        # The first of a pair alternates: what one leaves to settle must not slow only the other.
        order = sides if turn % 2 == 0 else sides[::-1]
        done = [run_slice(s.gateway + PATH, script, connections, SLICE_S) for s, script in order]
        if any(each.failed for each in done):
            raise RuntimeError("requests were refused: see the logs of the stacks")
        rates.append([each.per_second for each in (done if turn % 2 == 0 else done[::-1])])
    ratios = [new / old for new, old in rates]
    low, middle, high = statistics.quantiles(ratios, n=4)
    new_rate, old_rate = (round(median(side)) for side in zip(*rates, strict=True))
    print(
        f"{connections:>11} | {new_rate:>6} | {old_rate:>7} | {middle:.3f} ({low:.3f}-{high:.3f})"
    )


def _cpu_us(stack: BenchStack, script: Path, slices: int) -> dict[str, int]:
    before = cpu_seconds(stack.processes())
    asked = sum(
        run_slice(stack.gateway + PATH, script, CPU_CONNECTIONS, SLICE_S).requests
        for _ in range(slices)
    )
    stack.wait_until_settled()
    after = cpu_seconds(stack.processes())
    return {name: round((after[name] - before[name]) / asked * 1e6) for name in after}


if __name__ == "__main__":
    sys.exit(main())
