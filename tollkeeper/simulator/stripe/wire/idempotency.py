"""Answers kept by idempotency key."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from tollkeeper.simulator.stripe.wire.problem import Problem, bad_parameter

KEY_MAX_CHARACTERS = 255
KEPT_SECONDS = 24 * 3600
KEYS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The first answer to a key, with what it answered."""

    path: str
    fingerprint: bytes
    at: int
    request_id: str
    status: int
    body: bytes


class IdempotencyKeys:
    """The answers of the last 24 hours, at most KEYS_MAX; the oldest go first."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, KeptAnswer] = OrderedDict()

    def find(self, key: str, path: str, body: str, now: int) -> KeptAnswer | None:
        """Return the answer to replay; raises Problem if the key stands for another request."""
        if len(key) > KEY_MAX_CHARACTERS:
            raise bad_parameter(
                f"Idempotency keys can have up to {KEY_MAX_CHARACTERS} characters.", None
            )
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if len(self._answers) <= KEYS_MAX and oldest.at + KEPT_SECONDS > now:
                break
            self._answers.popitem(last=False)
        kept = self._answers.get(key)
        if kept is None:
            return None
        if kept.path != path:
            raise Problem(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used for the same endpoint they were "
                f"first used for ('{kept.path}' vs '{path}'). Try using a key other than "
                f"'{key}' if you meant to execute a different request.",
                is_kept=False,
            )
        if kept.fingerprint != _fingerprint(body):
            raise Problem(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they "
                f"were first used with. Try using a key other than '{key}' if you meant to "
                "execute a different request.",
                is_kept=False,
            )
        return kept

    def keep(
        self, key: str, path: str, body: str, now: int, request_id: str, status: int, answer: bytes
    ) -> None:
        self._answers[key] = KeptAnswer(path, _fingerprint(body), now, request_id, status, answer)


def _fingerprint(body: str) -> bytes:
    # Clients do not promise an order of parameters.
    return hashlib.sha256("&".join(sorted(body.split("&"))).encode()).digest()
