"""What an explanation consists of: phases, what came of each, and the answer that would follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class Phase(IntEnum):
    """The phases of a decision, in order: see `authz/decide.py`."""

    ROUTE = 1
    AUTHENTICATE = 2
    ADMIT = 3
    BODY = 4
    AUTHORIZE = 5
    ESTIMATE = 6
    LIMITS = 7
    HOLD = 8
    DEADLINE = 9


class Outcome(StrEnum):
    """What came of a phase. `not_needed` is for routes without metering."""

    OK = "ok"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    NOT_NEEDED = "not_needed"
    NOT_REACHED = "not_reached"


class Verdict(StrEnum):
    """What the whole decision would be; `undecided` is an outage, answered with 503."""

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
    """What the client would get: from us when refused; allowed, the headers beside the reply."""

    status: int | None
    code: str | None
    message: str | None
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision that was only tried out."""

    verdict: Verdict
    credential: str
    phases: Sequence[PhaseReport]
    answer: ClientAnswer

    def to_json(self) -> Mapping[str, Any]:
        """As POST /explain answers it."""
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
        }
