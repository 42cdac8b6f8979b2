"""Bills of several providers against the books, request by request and in sum."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chaos.upstream import BillRow

PICOS_PER_USD: Final = 10**12


@dataclass(frozen=True, slots=True)
class Seen:
    """A client's view of one request. `is_whole` says that a 200 came to its end."""

    request_id: str | None
    status: int | None
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Booked:
    """One ended hold in the books. `provider` is None where nothing was charged.

    `is_guess` says that a policy decided, because no usage arrived and these providers keep no
    records to ask for: it charges a guess, or nothing for a request that failed.
    """

    request_id: str
    provider: str | None
    cost_picos: int
    is_guess: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of a whole campaign."""

    seen: tuple[Seen, ...]
    booked: Mapping[str, Booked]
    bills: Mapping[str, tuple[BillRow, ...]]
    # The key of ours that pays each provider; no check where it is not given.
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """Return what is not right, in words."""
        return [*self._of_bills(), *self._of_books(), *self._of_clients()]

    def _of_bills(self) -> Iterable[str]:
        billed_by: dict[str, str] = {}
        for provider, rows in self.bills.items():
            key = self.keys.get(provider)
            digest = None if key is None else hashlib.sha256(key.encode()).hexdigest()
            for row in rows:
                if digest not in (None, row.key_sha256):
                    yield f"{row.request_id}: {provider} was asked with another key than its own"
                if row.request_id is None:
                    yield f"{provider}: {row.generation_id} came without a request id"
                    continue
                other = billed_by.setdefault(row.request_id, provider)
                if other != provider:
                    yield f"{row.request_id}: billed by {other} and {provider}"
                booked = self.booked.get(row.request_id)
                if booked is None:
                    yield f"{row.request_id}: billed by {provider}, and no hold has ended for it"
                elif booked.is_guess:
                    continue
                elif (booked.provider, booked.cost_picos) != (provider, row.cost_picos):
                    yield (
                        f"{row.request_id}: {provider} billed {row.cost_picos}, and the books say"
                        f" {booked.provider} {booked.cost_picos}"
                    )

    def _of_books(self) -> Iterable[str]:
        billed = {row.request_id for rows in self.bills.values() for row in rows}
        for one in self.booked.values():
            if one.provider is not None and not one.is_guess and one.request_id not in billed:
                yield f"{one.request_id}: charged for {one.provider}, and nobody billed it"

    def _of_clients(self) -> Iterable[str]:
        for one in self.seen:
            if not one.is_whole:
                continue
            booked = None if one.request_id is None else self.booked.get(one.request_id)
            if booked is None or booked.provider is None:
                yield f"{one.request_id}: answered whole, and not charged"

    def sums(self, provider: str) -> tuple[int, int]:
        """Return bill and books of one provider in pico-dollars, without guessed requests."""
        guessed = {one.request_id for one in self.booked.values() if one.is_guess}
        bill_picos = sum(
            row.cost_picos for row in self.bills[provider] if row.request_id not in guessed
        )
        books_picos = sum(
            one.cost_picos
            for one in self.booked.values()
            if one.provider == provider and not one.is_guess
        )
        return bill_picos, books_picos

    def to_text(self) -> str:
        """A table by provider, and what the clients saw."""
        rows = [f"{'provider':<24}{'billed':>8}{'bill USD':>20}{'books USD':>20}{'guessed':>9}"]
        guessed = {one.request_id for one in self.booked.values() if one.is_guess}
        for provider, bill in self.bills.items():
            bill_picos, books_picos = self.sums(provider)
            guesses = sum(row.request_id in guessed for row in bill)
            rows.append(
                f"{provider:<24}{len(bill):>8}{bill_picos / PICOS_PER_USD:>20.12f}"
                f"{books_picos / PICOS_PER_USD:>20.12f}{guesses:>9}"
            )
        statuses = Counter(_outcome(one) for one in self.seen)
        told = ", ".join(f"{name} {count}" for name, count in sorted(statuses.items()))
        by_policy = [
            row for bill in self.bills.values() for row in bill if row.request_id in guessed
        ]
        bill_picos = sum(row.cost_picos for row in by_policy)
        cost_picos = sum(one.cost_picos for one in self.booked.values() if one.is_guess)
        rows.append(
            f"by policy alone: {len(by_policy)} billed, {bill_picos / PICOS_PER_USD:.12f} USD;"
            f" {len(guessed)} in the books, {cost_picos / PICOS_PER_USD:.12f} USD"
        )
        return "\n".join([*rows, "", f"clients saw: {told}"])


def _outcome(seen: Seen) -> str:
    if seen.status is None:
        return "no answer"
    return f"{seen.status}" if seen.is_whole or seen.status != 200 else "200 cut off"


def by_request(booked: Sequence[Booked]) -> dict[str, Booked]:
    """Return the books by request id. Raises ValueError when a request has two holds."""
    found = {one.request_id: one for one in booked}
    if len(found) < len(booked):
        raise ValueError("a request has two holds")
    return found
