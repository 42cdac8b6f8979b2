"""`python -m bench`: measure Tollkeeper against plain Envoy, in one interleaved run."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.bodies import measure_bodies
from bench.budgets import compare
from bench.gateway import measure_gateway
from bench.load import LoadGeneratorMissing, median
from bench.peers import PeerMissing
from bench.scale import measure_scale
from bench.settling import settle_rates

LATEST = Path(__file__).parent / "latest.json"
SCALE = Path(__file__).parent / "scale.json"
LEDGERS = (10_000, 1_000_000)
HISTORIES = (10_000, 100_000, 1_000_000, 10_000_000)


def main() -> int:
    """Run everything, print the rows and write them to bench/latest.json."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--slices", type=int, default=7, help="one-second slices of each kind")
    parser.add_argument("--paced-seconds", type=int, default=8, help="seconds of 100 requests each")
    parser.add_argument("--peers", action="store_true", help="also Portkey and LiteLLM")
    chosen = parser.parse_args()
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


def _measure_scale(slices: int) -> int:
    rows: dict[str, Any] = dict(asyncio.run(measure_scale(slices, _say)))
    rates = settle_rates(HISTORIES)
    rows["ledger_entries"] = [
        {"entries": entries, "settled_per_second": round(median(rate))}
        for entries, rate in rates.items()
    ]
    SCALE.write_text(json.dumps(rows, indent=2) + "\n")
    for quantity, points in rows.items():
        print(f"\n{quantity}")
        for point in points:
            print(f"  {point}")
    return 0


def _settling_rows() -> dict[str, Any]:
    rates = settle_rates(LEDGERS)
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
