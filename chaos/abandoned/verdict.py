"""Charge against bill, request by request and in sum."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

PICOS_PER_USD: Final = Decimal(10) ** 12
MOST_RATIO: Final = 3.0
MOST_RATIO_IN_SUM: Final = 1.05


@dataclass(frozen=True, slots=True)
class Charged:
    """One billed request in the books. Amounts are pico-dollars; there is no markup.

    `guess_picos` is what a policy charged first, None where the usage was known.
    """

    kind: str
    held_picos: int
    charge_picos: int
    guess_picos: int | None
    bill_picos: int

    @property
    def ratio(self) -> float:
        """Charge divided by bill."""
        return self.charge_picos / self.bill_picos

    @property
    def is_within(self) -> bool:
        """True where the charge is near the bill."""
        return self.ratio <= MOST_RATIO


@dataclass(frozen=True, slots=True)
class Verdict:
    """All requests of a campaign."""

    requests: tuple[Charged, ...]
    unbilled_charges: int

    @property
    def ratio_in_sum(self) -> float:
        """Sum of charges divided by the sum of bills."""
        return _in_sum((one.charge_picos, one.bill_picos) for one in self.requests)

    @property
    def failures(self) -> list[str]:
        """Return the limits that were not kept."""
        found = [
            f"{one.kind}: charged {one.ratio:.2f} times the bill of {one.bill_picos} pico-dollars"
            for one in self.requests
            if not one.is_within
        ]
        if not 1 / MOST_RATIO_IN_SUM <= self.ratio_in_sum <= MOST_RATIO_IN_SUM:
            found.append(f"in sum {self.ratio_in_sum:.4f} times the bill")
        return found

    def to_text(self) -> str:
        """A table by kind, then the sums."""
        rows = [f"{'kind':<28}{'billed':>7}{'guessed':>9}{'guess/bill':>12}{'least':>8}{'most':>8}"]
        for kind in sorted({one.kind for one in self.requests}):
            of_kind = [one for one in self.requests if one.kind == kind]
            guessed = [one for one in of_kind if one.guess_picos is not None]
            first = _in_sum((one.guess_picos or 0, one.bill_picos) for one in guessed)
            ratios = [one.ratio for one in of_kind]
            rows.append(
                f"{kind:<28}{len(of_kind):>7}{len(guessed):>9}{first:>12.3f}"
                f"{min(ratios):>8.2f}{max(ratios):>8.2f}"
            )
        guessed = [one for one in self.requests if one.guess_picos is not None]
        held = _in_sum((one.held_picos, one.bill_picos) for one in guessed)
        before = _in_sum((one.guess_picos or 0, one.bill_picos) for one in guessed)
        after = _in_sum((one.charge_picos, one.bill_picos) for one in guessed)
        rows += [
            "",
            f"guessed: {len(guessed)} of {len(self.requests)} billed; charged though unbilled:"
            f" {self.unbilled_charges}",
            f"of those guessed: hold/bill {held:.1f}, guess/bill {before:.4f},"
            f" corrected/bill {after:.6f}",
            f"of all: charge/bill {self.ratio_in_sum:.6f}",
        ]
        return "\n".join(rows)


def read_bill_by_tag(path: Path) -> Mapping[str, int]:
    """Return what the upstream billed for each tag, in pico-dollars."""
    billed: dict[str, int] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        tag = row["trace_id"]
        if tag:
            billed[tag] = billed.get(tag, 0) + int(Decimal(row["cost"]) * PICOS_PER_USD)
    return billed


def _in_sum(pairs: Iterable[tuple[int, int]]) -> float:
    charges, bills = 0, 0
    for charge_picos, bill_picos in pairs:
        charges += charge_picos
        bills += bill_picos
    return charges / bills if bills else 1.0
