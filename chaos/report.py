"""The table of a campaign, for people and for chaos/latest.json."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from chaos.check_bill import Bill
from chaos.checker import Verdict
from chaos.records import Seen
from chaos.upstream import PICOS_PER_USD


@dataclass(frozen=True, slots=True)
class Report:
    """One campaign in figures. Times are in seconds."""

    seed: int
    minutes: float
    command: str
    began_at: str
    seen: list[Seen]
    kills: Counter[str]
    others: Counter[str]
    recoveries_s: dict[str, list[float]]
    quiet_after_s: float
    verdict: Verdict

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of the table, in its order."""
        return [*self._load_rows(), *self._fault_rows(), *self._money_rows()]

    def _load_rows(self) -> list[tuple[str, str]]:
        complete = sum(one.status == 200 and one.is_complete for one in self.seen)
        refused = sum(one.status is not None and one.status >= 400 for one in self.seen)
        left = sum(one.leaves is not None for one in self.seen)
        return [
            ("seed, minutes of load", f"{self.seed}, {self.minutes:g}"),
            ("requests", f"{len(self.seen)}"),
            ("  answered whole / refused / left by the client", f"{complete} / {refused} / {left}"),
        ]

    def _fault_rows(self) -> list[tuple[str, str]]:
        recovered = ", ".join(
            f"{kind} {median(took):.1f} (most {max(took):.1f})"
            for kind, took in sorted(self.recoveries_s.items())
        )
        return [
            ("kills", f"{self.kills.total()}: {_counts(self.kills)}"),
            ("other faults", f"{self.others.total()}: {_counts(self.others)}"),
            ("answers again after, median s", recovered or "-"),
        ]

    def _money_rows(self) -> list[tuple[str, str]]:
        found, bill, further = self.verdict, self.verdict.bill, self.verdict.further
        sources = [found.settled_by.get(one, 0) for one in ("stream", "file", "lookup", "policy")]
        return [
            ("rows of the bill", f"{found.bill_rows}: {usd(bill.billed_picos)} USD"),
            ("settled by stream / file / lookup / policy", " / ".join(map(str, sources))),
            ("corrected / late / voided", f"{found.corrected} / {found.late} / {found.voided}"),
            ("charged by policy", f"{usd(bill.provisional_picos)} USD"),
            (
                "billed, but for a policy alone to end: rows, bill, charge / bill",
                f"{bill.guessed_rows}: {usd(bill.guessed_picos)} USD, {_ratio(bill)}",
            ),
            (
                "further bills: rows, of these by policy alone, bill, books",
                f"{further.rows}, {further.guessed_rows}: {usd(further.billed_picos)}"
                f" / {usd(further.settled_picos)} USD",
            ),
            ("paid with own keys of accounts", f"{further.own_rows}"),
            ("excess above holds", f"{usd(found.excess_picos)} USD"),
            ("difference between ledger and bill", f"{usd(bill.difference_picos)} USD"),
            ("lost / doubled / untagged", f"{bill.lost} / {bill.doubled} / {bill.untagged}"),
            ("overdrawn / unresolved", f"{found.overdrawn} / {found.unresolved}"),
            ("quiet after the load, s", f"{self.quiet_after_s:.1f}"),
        ]

    def to_text(self) -> str:
        """The table, ready for a README."""
        lines = [f"| {name} | {value} |" for name, value in self.rows()]
        return "\n".join(["| what | measured |", "|---|---|", *lines])

    def write(self, path: Path) -> None:
        """The same for programs."""
        path.write_text(json.dumps(self._to_json(), indent=2) + "\n")

    def _to_json(self) -> dict[str, Any]:
        verdict = asdict(self.verdict)
        return {
            "command": self.command,
            "began_at": self.began_at,
            "is_right": self.verdict.is_right,
            "table": {name.strip(): value for name, value in self.rows()},
            "kills": dict(self.kills),
            "other_faults": dict(self.others),
            "recoveries_s": {
                kind: [round(one, 2) for one in took] for kind, took in self.recoveries_s.items()
            },
            "verdict": verdict,
        }


def _ratio(bill: Bill) -> str:
    if not bill.guessed_picos:
        return "-"
    return f"{bill.provisional_picos / bill.guessed_picos:.2f}"


def usd(picos: int) -> str:
    """Pico-dollars as an exact decimal."""
    return f"{Decimal(picos) / PICOS_PER_USD:f}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"
