"""Spreads a known total over requests that a policy charged. Pure.

The provider does not say what each of these requests cost. Its own total says what they cost
together: each guess then moves by the same factor, as far as its hold allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Guess:
    """A request that a policy charged, and whose cost is still a guess.

    Amounts are pico-dollars before markup. `most_picos` is the cost that its hold covers, and
    `revision` that of its youngest usage record.
    """

    hold_id: UUID
    revision: int
    cost_picos: int
    most_picos: int


@dataclass(frozen=True, slots=True)
class Share:
    """The cost that a guess is corrected to; void once the request has another revision."""

    hold_id: UUID
    revision: int
    cost_picos: int


def spread(total_picos: int, guesses: Sequence[Guess]) -> list[Share]:
    """Return the guesses that change so that all of them add up to the total.

    Each gets its part in proportion to its guess, and none more than its hold covers. Where all
    holds together cover less than the total, each is charged in full and the rest stays apart.
    Integers only: the sum is exact, and each share is the proportional one rounded up or down.
    """
    if sum(guess.cost_picos for guess in guesses) == total_picos:
        return []
    # The first ones to reach their hold come first; a guess of nothing counts as the least amount.
    order = sorted(guesses, key=lambda one: (Fraction(one.most_picos, _weight(one)), one.hold_id))
    left_picos, left_weight = total_picos, sum(map(_weight, order))
    shares: list[Share] = []
    for position, guess in enumerate(order):
        if guess.most_picos * left_weight > left_picos * _weight(guess):
            shares += _in_proportion(left_picos, left_weight, order[position:])
            break
        shares.append(Share(guess.hold_id, guess.revision, guess.most_picos))
        left_picos -= guess.most_picos
        left_weight -= _weight(guess)
    before = {guess.hold_id: guess.cost_picos for guess in guesses}
    return [share for share in shares if share.cost_picos != before[share.hold_id]]


def _in_proportion(total_picos: int, total_weight: int, guesses: Sequence[Guess]) -> list[Share]:
    shares: list[Share] = []
    weight = given_picos = 0
    for guess in guesses:
        weight += _weight(guess)
        # Of the running total, so that what is rounded off one share is in a later one.
        due_picos = total_picos * weight // total_weight
        shares.append(Share(guess.hold_id, guess.revision, due_picos - given_picos))
        given_picos = due_picos
    return shares


def _weight(guess: Guess) -> int:
    return max(1, guess.cost_picos)
