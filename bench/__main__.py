"""`python -m bench`: measure Tollkeeper against plain Envoy, in one interleaved run."""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.bodies import measure_bodies
from bench.budgets import compare
from bench.gateway import measure_gateway
from bench.load import LoadGeneratorMissing, median
from bench.peers import PeerMissing
from bench.scale import QUANTITIES
from bench.settling import settle_rates

LATEST = Path(__file__).parent / "latest.json"
SCALE = Path(__file__).parent / "scale.json"
LEDGERS = (10_000, 1_000_000)


def main() -> int:
    """Run everything, print the rows and write them to bench/latest.json."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--slices", type=int, default=7, help="one-second slices of each kind")
    parser.add_argument("--paced-seconds", type=int, default=8, help="seconds of 100 requests each")
    parser.add_argument("--peers", action="store_true", help="also Portkey and LiteLLM")
    parser.add_argument("--scale", action="store_true", help="instead, with more of something")
    parser.add_argument(
        "--only", choices=list(QUANTITIES), action="append", help="with --scale: of this alone"
    )
    parser.add_argument(
        "--minutes", type=float, default=30, help="with --scale: begin nothing after so long"
    )
    chosen = parser.parse_args()
    if chosen.scale:
        return _measure_scale(chosen.only or list(QUANTITIES), chosen.slices, chosen.minutes)
    try:
        rows = asyncio.run(measure_gateway(chosen.slices, chosen.paced_seconds, chosen.peers, _say))
    except (LoadGeneratorMissing, PeerMissing) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    _say(f"settling on ledgers of {' and '.join(f'{entries:,}' for entries in LEDGERS)} entries")
    rows.update(_settling_rows())
    _say("reading bodies of five shapes")
    rows["bodies"] = measure_bodies()
    LATEST.write_text(json.dumps(rows, indent=2) + "\n")
    _print(rows)
    print(f"\nThe rows are in {LATEST}; what they mean is in bench/README.md.")
    return 0


def _measure_scale(quantities: list[str], slices: int, minutes: float) -> int:
    """Measure each quantity; its rows replace those of an earlier run in bench/scale.json."""
    began_s = time.monotonic()
    left_out = []
    for number, quantity in enumerate(quantities, 1):
        took_s = time.monotonic() - began_s
        if took_s > minutes * 60:
            left_out.append(quantity)
            continue
        _say(f"{quantity} ({number} of {len(quantities)}), {took_s:.0f} s so far")
        try:
            points = asyncio.run(QUANTITIES[quantity](slices, _say))
        except LoadGeneratorMissing as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        rows: dict[str, Any] = json.loads(SCALE.read_text()) if SCALE.exists() else {}
        rows[quantity] = points
        SCALE.write_text(json.dumps(rows, indent=2) + "\n")
        print("\n".join(f"  {point}" for point in points))
    if left_out:
        print(
            f"\nLeft out after {minutes:.0f} minutes: {', '.join(left_out)}. Next: --only names one"
        )
    return 0


def _settling_rows() -> dict[str, Any]:
    rounds = settle_rates(LEDGERS, _say)
    rates = {entries: [each.per_second for each in taken] for entries, taken in rounds.items()}
    small, large = (rates[entries] for entries in LEDGERS)
    ratios = [late / early for early, late in zip(small, large, strict=True)]
    return {
        "settling": {
            "records_per_second": {
                str(entries): round(median(rate)) for entries, rate in rates.items()
            },
            "large_to_small_ledger": round(median(ratios), 2),
        }
    }


def _print(rows: dict[str, Any]) -> None:
    print(f"\n{rows['machine']}\n")
    head = ("connections", "plain/s", "whole/s", "ratio", "plain p50/p99 ms", "whole p50/p99 ms")
    print(" | ".join(head))
    for row in rows["throughput"]:
        print(
            f"{row['connections']:>11} | {row['plain_per_second']:>7} | "
            f"{row['whole_per_second']:>7} | {row['ratio']:>5} | "
            f"{row['plain_p50_ms']:>7} / {row['plain_p99_ms']:<6} | "
            f"{row['whole_p50_ms']:>7} / {row['whole_p99_ms']:<6}"
        )
        for name, peer in row["peers"].items():
            print(f"            | {name}: {peer}")
    print("\nCPU per request, 16 connections, microseconds:", rows["cpu_us_per_request"])
    _print_budgets(rows["cpu_us_per_request"], rows["unit_us"])
    print("At 100 requests a second, milliseconds:", rows["paced"])
    print("\nBy credential, 16 connections:")
    for name, row in rows["identity"].items():
        print(f"  {name}: {row}")
    print("Settling, one process:", rows["settling"])
    print("\nReading a body, CPU:")
    for name, row in rows["bodies"].items():
        print(f"  {name}: {row}")
    print("Books afterwards:", rows["books"])


def _print_budgets(cpu_us: dict[str, float], unit_us: float) -> None:
    print(f"In units of {unit_us} us, beside the budgets:")
    for name, spent in compare(cpu_us, unit_us).items():
        verdict = "over by more than a quarter" if spent.is_over else "within"
        print(f"  {name:>9} | {spent.units:>6} | {spent.budget_units:>4} | {verdict}")


def _say(text: str) -> None:
    print(f"bench: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
