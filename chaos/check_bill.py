"""V3, V4, V6 and V7: settled is what was billed, once each, and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final
from uuid import UUID

from chaos.books import Books, Usage
from chaos.records import Seen
from chaos.upstream import DEFAULT_PROVIDER, Arrival, BillRow
from chaos.verdict import Findings

BASIS: Final = 10_000
# Reasons with which a policy ends a hold without a charge.
VOIDS: Final = frozenset({"not_billed", "failed"})
# Codes of refusals that are ours to make before anything goes up.
OUR_REFUSALS: Final = frozenset(
    {"insufficient_credits", "unavailable", "rate_limit_exceeded", "invalid_api_key"}
)


@dataclass(frozen=True, slots=True)
class Settled:
    """All usage records of one hold together."""

    hold_id: UUID
    records: tuple[Usage, ...]

    @property
    def generation_ids(self) -> set[str]:
        """One, or none where policy decided and the truth never turned up."""
        return {one.generation_id for one in self.records if one.generation_id is not None}

    @property
    def cost_picos(self) -> int:
        """The sum of what the provider is said to have charged."""
        return sum(one.cost_picos for one in self.records)

    @property
    def owed_picos(self) -> int:
        """The part of the cost that we owe: all but what was paid with own keys."""
        return sum(one.cost_picos for one in self.records if not one.is_own_key)

    @property
    def is_of_default(self) -> bool:
        """True for the provider whose bill names generations: OpenRouter."""
        return any(one.provider == DEFAULT_PROVIDER for one in self.records)

    @property
    def charge_picos(self) -> int:
        """The sum that the customer paid."""
        return sum(one.charge_picos for one in self.records)

    @property
    def is_by_policy(self) -> bool:
        """True if all of it is charged by policy: nobody knew the cost."""
        return all(one.source == "policy" for one in self.records)


@dataclass(frozen=True, slots=True)
class Bill:
    """The books beside the bill, in pico-dollars and rows.

    `provisional_picos` is the cost of requests that a policy charged. `guessed_rows` and
    `guessed_picos` are the rows of the bill that only a policy has ended, charged or not.
    """

    billed_picos: int
    settled_picos: int
    provisional_picos: int
    lost: int
    doubled: int
    untagged: int
    guessed_rows: int = 0
    guessed_picos: int = 0

    @property
    def difference_picos(self) -> int:
        """All that the books know of the provider's charges, less what it did charge."""
        return self.settled_picos + self.guessed_picos - self.billed_picos


def settled_holds(books: Books) -> list[Settled]:
    """Usage records, gathered by their hold."""
    by_hold: dict[UUID, list[Usage]] = defaultdict(list)
    for one in books.usage:
        by_hold[one.hold_id].append(one)
    return [Settled(hold_id, tuple(records)) for hold_id, records in by_hold.items()]


def check_bill(
    books: Books, rows: list[BillRow], findings: Findings, has_reports: bool = True
) -> Bill:
    """Every row is settled exactly once at exactly its cost, or ended by a policy.

    With reports of the provider nothing that was billed may be left to a policy.
    """
    costs = {row.generation_id: row.cost_picos for row in rows}
    settled = [one for one in settled_holds(books) if one.is_of_default]
    claims = Counter(one for hold in settled for one in hold.generation_ids)
    guessed = find_guessed(books, rows)
    if has_reports:
        findings.require_none("V3", "billed and reported, yet ended by policy", guessed)
    unclaimed = set(costs) - set(claims) - guessed
    lost = findings.require_none("V3", "bill rows without a settlement", unclaimed)
    doubled = findings.require_none("V3", "settled more than once", _doubled(settled, claims))
    untagged = findings.require_none(
        "V7", "settlements without a bill row", _untagged(settled, costs)
    )
    settled = [one for one in settled if not _is_hearsay(one, costs)]
    wrong = [one.hold_id for one in settled if _is_wrong(one, costs)]
    findings.require_none("V4", "settled at another cost than billed", wrong)
    provisional = sum(hold.cost_picos for hold in settled if hold.is_by_policy)
    total = sum(hold.cost_picos for hold in settled) - provisional
    guessed_picos = sum(costs[one] for one in guessed)
    billed = sum(costs.values())
    return Bill(billed, total, provisional, lost, doubled, untagged, len(guessed), guessed_picos)


def find_guessed(books: Books, rows: list[BillRow]) -> set[str]:
    """Rows that only a policy has ended, by the id under which their request went up."""
    settled = settled_holds(books)
    claimed = {one for hold in settled for one in hold.generation_ids}
    ended = {hold.id for hold in books.ended if hold.ending in VOIDS}
    ended -= {one.hold_id for one in settled}
    ended |= {one.hold_id for one in settled if one.is_by_policy}
    requests = {str(hold.request_id) for hold in books.ended if hold.id in ended}
    return {
        row.generation_id
        for row in rows
        if row.generation_id not in claimed and row.request_id in requests
    }


def _doubled(settled: list[Settled], claims: Counter[str]) -> Iterator[str]:
    yield from (generation_id for generation_id, count in claims.items() if count > 1)
    for hold in settled:
        revisions = [one.revision for one in hold.records]
        if sorted(revisions) != list(range(len(revisions))) or len(hold.generation_ids) > 1:
            yield str(hold.hold_id)


def _untagged(settled: list[Settled], costs: dict[str, int]) -> Iterator[UUID]:
    for hold in settled:
        is_billed = any(one in costs for one in hold.generation_ids)
        if not is_billed and not hold.is_by_policy:
            yield hold.hold_id


def _is_hearsay(hold: Settled, costs: dict[str, int]) -> bool:
    """Return whether nobody pays for a request with an own key: what its reply said may stand."""
    is_own_key = all(one.is_own_key for one in hold.records)
    return is_own_key and not hold.charge_picos and not any(map(costs.get, hold.generation_ids))


def _is_wrong(hold: Settled, costs: dict[str, int]) -> bool:
    billed = [costs[one] for one in hold.generation_ids if one in costs]
    return bool(billed) and sum(billed) != hold.cost_picos


def check_charges(books: Books, findings: Findings) -> None:
    """Charges are cost and markup, rounded up once, and the ledger moved just these."""
    holds = {hold.id: hold for hold in books.holds}
    settled = settled_holds(books)
    findings.require_none(
        "V6", "settlements without a hold", {one.hold_id for one in settled} - set(holds)
    )
    known = [one for one in settled if one.hold_id in holds]
    wrong = [
        one.hold_id
        for one in known
        if one.charge_picos
        != ceil(Fraction(one.cost_picos * (BASIS + holds[one.hold_id].markup_bps), BASIS))
    ]
    findings.require_none("V4", "charges that are not cost and markup", wrong)
    strangers = [
        one.hold_id
        for one in known
        if {record.account_id for record in one.records} != {holds[one.hold_id].account_id}
    ]
    findings.require_none("V3", "charged to somebody else", strangers)
    _check_moved(books, settled, findings)


def _check_moved(books: Books, settled: list[Settled], findings: Findings) -> None:
    paid, passed_on = Counter[UUID](), Counter[UUID]()
    for posting in books.postings:
        if posting.hold_id is not None:
            for entry in posting.entries:
                if entry.ledger_account == "customer":
                    paid[posting.hold_id] -= entry.amount_picos
                elif entry.ledger_account == "provider":
                    passed_on[posting.hold_id] += entry.amount_picos
    owed = {one.hold_id: (one.charge_picos, one.owed_picos) for one in settled}
    wrong = [
        hold_id
        for hold_id in {*owed, *paid, *passed_on}
        if owed.get(hold_id, (0, 0)) != (paid[hold_id], passed_on[hold_id])
    ]
    findings.require_none("V4", "usage that the ledger tells otherwise", wrong)


def check_holds(books: Books, findings: Findings) -> None:
    """A hold ends once, and with a settlement if and only if it says so."""
    counts = Counter(hold.id for hold in books.holds)
    twice = [hold_id for hold_id, count in counts.items() if count > 1]
    findings.require_none("V3", "holds that stand twice", twice)
    first = {one.hold_id for one in books.usage if one.revision == 0 and one.kind != "late"}
    said = {hold.id for hold in books.ended if hold.state == "settled"}
    findings.require_none("V3", "settled holds without a usage record", said - first)
    findings.require_none("V3", "usage records of holds that ended otherwise", first - said)


def check_arrivals(
    books: Books, arrivals: list[Arrival], seen: list[Seen], findings: Findings
) -> None:
    """Check that each request that reached the upstream had a hold and was not refused by us."""
    known = {str(hold.request_id) for hold in books.holds}
    without = [one.tag for one in arrivals if one.request_id not in known]
    findings.require_none("V6", "reached the upstream without a hold", without)
    arrived = {one.tag for one in arrivals}
    refused = [
        one.tag
        for one in seen
        # OpenAI's own 429 has the same code as ours.
        if one.refusal in OUR_REFUSALS and one.kind != "refused_429" and one.tag in arrived
    ]
    findings.require_none("V6", "refused by us, yet reached the upstream", refused)
    counts = Counter(hold.request_id for hold in books.holds)
    shared = [one for one, count in counts.items() if one is None or count > 1]
    findings.require_none("V6", "request ids of more than one hold, or of none", shared)


def check_clients(books: Books, rows: list[BillRow], seen: list[Seen], findings: Findings) -> None:
    """Check that each answer that a client saw is billed, and charged to that client."""
    billed = {row.generation_id for row in rows}
    answered = [(one, one.generation_id) for one in seen if one.status == 200 and one.generation_id]
    unbilled = [one.tag for one, generation_id in answered if generation_id not in billed]
    findings.require_none("V3", "answered with 200, but not on the bill", unbilled)
    payers = {one.generation_id: one.account_id for one in books.usage if one.generation_id}
    foreign = [one.tag for one, paid in answered if payers.get(paid, one.account) != one.account]
    findings.require_none("V3", "charged to somebody else than who asked", foreign)
    paying = set(payers) | find_guessed(books, rows)
    whole = [one.tag for one, paid in answered if one.is_complete and paid not in paying]
    findings.require_none("V3", "complete replies without a charge", whole)
