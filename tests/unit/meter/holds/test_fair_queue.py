"""The fair queue: accounts take turns, each in its own order, and nothing is lost."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from meter.holds.fair_queue import FairQueue


class Item(NamedTuple):
    account_id: str
    number: int


def filled(*items: Item) -> FairQueue[Item]:
    queue: FairQueue[Item] = FairQueue()
    for item in items:
        queue.add(item)
    return queue


def test_a_flood_delays_another_account_by_one_turn() -> None:
    queue = filled(*(Item("flood", number) for number in range(1_000)), Item("other", 0))
    assert queue.ahead_of("other") >= 1
    assert Item("other", 0) in queue.take(2)


def test_turns_go_on_where_the_last_take_ended() -> None:
    queue = filled(*(Item(account, number) for account in "abcd" for number in range(2)))
    served = [item.account_id for _ in range(4) for item in queue.take(2)]
    assert served == list("abcdabcd")


def test_an_item_that_was_discarded_is_never_taken() -> None:
    queue = filled(Item("a", 0), Item("a", 1), Item("b", 0))
    assert queue.discard(Item("b", 0))
    assert queue.discard(Item("a", 0))
    assert not queue.discard(Item("a", 0))
    assert (len(queue), queue.take(9), len(queue)) == (1, [Item("a", 1)], 0)


@given(
    st.lists(st.sampled_from("abcde"), max_size=60),
    st.sampled_from("abcdef"),
    st.integers(1, 7),
)
def test_no_item_waits_longer_than_foretold(accounts: list[str], asking: str, limit: int) -> None:
    queue: FairQueue[Item] = FairQueue()
    for number, account in enumerate(accounts):
        queue.add(Item(account, number))
    foretold = queue.ahead_of(asking)
    queue.add(Item(asking, -1))
    left: list[Item] = []
    while queue:
        left += queue.take(limit)
    assert left.index(Item(asking, -1)) <= foretold
    assert sorted(left) == sorted([*map(Item, accounts, range(len(accounts))), Item(asking, -1)])
    for account in set(accounts) - {asking}:
        numbers = [item.number for item in left if item.account_id == account]
        assert numbers == sorted(numbers)
