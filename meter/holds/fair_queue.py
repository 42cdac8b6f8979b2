"""A queue in which accounts take turns, so that a flood of one account delays only itself."""

from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar


class OfAccount(Protocol):
    """A waiting item. Accounts are told apart by its `account_id`."""

    @property
    def account_id(self) -> str:
        """Return the id of the account that the item belongs to."""
        ...


Item = TypeVar("Item", bound=OfAccount)


class FairQueue(Generic[Item]):
    """Keeps one queue for each account; `take` serves the accounts in turn, an item at a time.

    Items of one account leave in the order in which they came.
    """

    def __init__(self) -> None:
        self._by_account: OrderedDict[str, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, item: Item) -> None:
        """Put an item behind the other items of its account."""
        queue = self._by_account.get(item.account_id)
        if queue is None:
            queue = self._by_account[item.account_id] = deque()
        queue.append(item)
        self._length += 1

    def take(self, limit: int) -> list[Item]:
        """Remove and return up to `limit` items, one of each account in turn."""
        taken: list[Item] = []
        while self._by_account and len(taken) < limit:
            account_id, queue = self._by_account.popitem(last=False)
            taken.append(queue.popleft())
            if queue:
                # Behind all others: the next call of `take` goes on where this one ended.
                self._by_account[account_id] = queue
        self._length -= len(taken)
        return taken

    def discard(self, item: Item) -> bool:
        """Remove an item; return whether it was waiting."""
        queue = self._by_account.get(item.account_id)
        if queue is None or item not in queue:
            return False
        queue.remove(item)
        self._length -= 1
        if not queue:
            del self._by_account[item.account_id]
        return True

    def ahead_of(self, account_id: str) -> int:
        """Return the greatest number of items that leave before the next one of an account.

        Every other account takes at most one turn for each item of this account.
        """
        own = len(self._by_account.get(account_id, ()))
        others = len(self._by_account) - (1 if own else 0)
        return min(self._length, own + others * (own + 1))
