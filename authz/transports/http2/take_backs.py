"""Answers that were written, and that the peer may still turn out not to have used.

A peer that gives a call up before it has the whole answer resets the stream; one that has read
the end of the stream cannot reset it any more. A PING written after answers is acknowledged
after they were read, so its acknowledgement says from when on no reset can come. One more round
is waited for, because an acknowledgement may overtake a reset that was written with it.
"""

from collections.abc import Callable
from typing import Final

FENCE_AFTER_ANSWERS: Final = 256
TakeBack = Callable[[], None]


class TakeBacks:
    """Keeps the functions that undo the answers of one connection, while they may be needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._fresh: dict[int, TakeBack] = {}
        self._fenced: dict[int, TakeBack] = {}
        self._passed: dict[int, TakeBack] = {}
        self._is_fence_up = False

    def __len__(self) -> int:
        return len(self._fresh) + len(self._fenced) + len(self._passed)

    @property
    def needs_fence(self) -> bool:
        """Return whether enough answers have gathered for a PING."""
        return not self._is_fence_up and len(self._fresh) >= FENCE_AFTER_ANSWERS

    def remember(self, stream_id: int, take_back: TakeBack) -> None:
        """Keep an answer. Above the limit the oldest is dropped: the sweep will find its hold."""
        self._fresh[stream_id] = take_back
        if len(self) > self._most:
            oldest = self._passed or self._fenced or self._fresh
            del oldest[next(iter(oldest))]

    def pop(self, stream_id: int) -> TakeBack | None:
        """Return, once, the function that undoes the answer on a stream that was reset."""
        for answers in (self._fresh, self._fenced, self._passed):
            if stream_id in answers:
                return answers.pop(stream_id)
        return None

    def raise_fence(self) -> bool:
        """Return whether a PING is to be written now, after every answer so far."""
        if self._is_fence_up or not len(self):
            return False
        self._fenced, self._fresh = self._fresh, {}
        self._is_fence_up = True
        return True

    def pass_fence(self) -> None:
        """Note that the PING was acknowledged."""
        if self._is_fence_up:
            self._passed, self._fenced = self._fenced, {}
            self._is_fence_up = False
