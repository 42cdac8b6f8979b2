"""Replays a seed, or tries many: python -m tests.laws.state_machine --seed 7 --steps 1000000."""

import argparse
import sys
import time

from tests.laws.state_machine.simulation import Simulation


def main() -> int:
    """Print each seed before its run; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many, counted from --seed")
    parser.add_argument("--steps", type=int, default=100_000)
    asked = parser.parse_args()
    for seed in range(asked.seed, asked.seed + asked.seeds):
        sys.stdout.write(f"seed {seed}: ")
        sys.stdout.flush()
        simulation, began = Simulation(seed), time.perf_counter()
        simulation.run(asked.steps)
        per_second = asked.steps / (time.perf_counter() - began)
        sys.stdout.write(f"{per_second:,.0f} steps/s, {simulation.crashes} crashes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
