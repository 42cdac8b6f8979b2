"""A total is spread exactly, in proportion to the guesses, and within each hold."""

from fractions import Fraction
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from meter.settlement.spreading import Guess, spread

AMOUNTS = st.integers(0, 10**15)


@st.composite
def guess_lists(draw: st.DrawFn) -> list[Guess]:
    found = []
    for number in range(draw(st.integers(1, 30))):
        most = draw(AMOUNTS)
        found.append(Guess(UUID(int=number), 0, draw(st.integers(0, most)), most))
    return found


def after(total: int, guesses: list[Guess]) -> dict[UUID, int]:
    """Return the charge of each request once the total is spread."""
    costs = {guess.hold_id: guess.cost_picos for guess in guesses}
    return costs | {share.hold_id: share.cost_picos for share in spread(total, guesses)}


@given(guess_lists(), st.integers(0, 10**17))
def test_the_sum_is_exact_and_every_hold_is_kept(guesses: list[Guess], total: int) -> None:
    costs = after(total, guesses)
    assert sum(costs.values()) == min(total, sum(guess.most_picos for guess in guesses))
    for guess in guesses:
        assert 0 <= costs[guess.hold_id] <= guess.most_picos


@given(guess_lists(), st.integers(0, 10**17))
def test_spreading_again_changes_nothing(guesses: list[Guess], total: int) -> None:
    costs = after(total, guesses)
    again = [Guess(one.hold_id, 1, costs[one.hold_id], one.most_picos) for one in guesses]
    assert spread(sum(costs.values()), again) == []


@given(guess_lists(), st.fractions(0, 1))
def test_a_smaller_total_lowers_every_guess_in_proportion(
    guesses: list[Guess], part: Fraction
) -> None:
    guessed = [Guess(g.hold_id, 0, g.cost_picos + 1, g.most_picos + 1) for g in guesses]
    total = int(sum(guess.cost_picos for guess in guessed) * part)
    whole = sum(guess.cost_picos for guess in guessed)
    for hold_id, cost in after(total, guessed).items():
        (guess,) = [one for one in guessed if one.hold_id == hold_id]
        assert abs(cost * whole - guess.cost_picos * total) < whole, "rounded once"


def test_what_one_hold_does_not_cover_is_shared_by_the_others() -> None:
    guesses = [
        Guess(UUID(int=1), 0, 100, 120),
        Guess(UUID(int=2), 0, 100, 10_000),
        Guess(UUID(int=3), 0, 300, 10_000),
    ]
    assert list(after(1_320, guesses).values()) == [120, 300, 900]
    assert spread(500, guesses) == []
