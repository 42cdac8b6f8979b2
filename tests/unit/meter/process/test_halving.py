"""One faulty item of a batch is found, and holds up no other."""

import sys

import pytest

from meter.errors import StoreUnavailable
from meter.process.halving import in_halves


class Numbers:
    """Adds numbers up; those that are faulty fail the whole batch."""

    def __init__(self, faulty: dict[int, Exception]) -> None:
        self._faulty = faulty
        self.attempts: list[list[int]] = []

    async def add(self, batch: list[int]) -> int:
        self.attempts.append(batch)
        for number in batch:
            if number in self._faulty:
                raise self._faulty[number]
        return sum(batch)

    async def give_up(self, number: int, error: Exception) -> int:
        assert sys.exception() is error is self._faulty[number]
        return -number


async def test_a_batch_without_a_fault_is_attempted_once() -> None:
    numbers = Numbers({})
    assert await in_halves([1, 2, 3], numbers.add, numbers.give_up) == [6]
    assert numbers.attempts == [[1, 2, 3]]


@pytest.mark.parametrize("faulty", [set(), {0}, {6}, {2, 3}, {0, 3, 6}, set(range(7))])
async def test_only_faulty_items_are_given_up(faulty: set[int]) -> None:
    numbers = Numbers({number: ValueError(str(number)) for number in faulty})
    results = await in_halves(list(range(7)), numbers.add, numbers.give_up)
    assert sum(results) == sum(-n if n in faulty else n for n in range(7))
    done = [number for batch in numbers.attempts for number in batch if not faulty & set(batch)]
    assert done == [number for number in range(7) if number not in faulty]


async def test_a_passing_error_ends_the_attempt() -> None:
    numbers = Numbers({0: ValueError(), 3: StoreUnavailable("away")})
    with pytest.raises(StoreUnavailable):
        await in_halves([0, 1, 2, 3], numbers.add, numbers.give_up, passing=(StoreUnavailable,))
    assert numbers.attempts == [[0, 1, 2, 3], [0, 1], [0], [1], [2, 3]]


async def test_only_a_divisive_error_divides() -> None:
    numbers = Numbers({1: KeyError()})
    with pytest.raises(KeyError):
        await in_halves([0, 1], numbers.add, numbers.give_up, ValueError)
    assert numbers.attempts == [[0, 1]]
