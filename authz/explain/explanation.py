"""The parts of an explanation: the phases, the outcome of each, and the answer to the client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from authz.trace import Phase


class Outcome(StrEnum):
    """The outcome of a phase. `not_needed` is for routes without metering."""

    OK = "ok"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    NOT_NEEDED = "not_needed"
    NOT_REACHED = "not_reached"


class Verdict(StrEnum):
    """The whole decision; `undecided` is an outage, answered with 503."""

    ALLOW = "allow"
    REFUSE = "refuse"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """One phase and a sentence about it."""

    phase: Phase
    outcome: Outcome
    says: str


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """The answer to the client: all of it for a refusal, our headers for an allowed request."""

    status: int | None
    code: str | None
    message: str | None
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision that was tried out, with its reasons."""

    verdict: Verdict
    credential: str
    phases: Sequence[PhaseReport]
    answer: ClientAnswer
    # What will go wrong after the decision.
    warnings: Sequence[str] = ()

    def to_json(self) -> Mapping[str, Any]:
        """Return the answer of POST /explain."""
        return {
            "verdict": self.verdict.value,
            "credential": self.credential,
            "phases": [
                {
                    "phase": int(report.phase),
                    "name": report.phase.name.lower(),
                    "outcome": report.outcome.value,
                    "says": report.says,
                }
                for report in self.phases
            ],
            "answer": {
                "status": self.answer.status,
                "code": self.answer.code,
                "message": self.answer.message,
                "headers": dict(self.answer.headers),
            },
            "warnings": list(self.warnings),
        }
