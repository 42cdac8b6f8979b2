"""The provider keys that a dialect accepts."""

import hmac

from aiohttp import web
from pydantic import SecretStr

from tollkeeper.simulator.dialects.dialect import ProviderDialect

KEYS_MAX = 10_000


class Keyring:
    """Checks provider keys: the one that is set, or any of the dialect's form if none is set.

    Single keys can be accepted or rejected beside that, by whoever controls the simulator.
    """

    def __init__(self, dialect: ProviderDialect, key: SecretStr | None) -> None:
        self._dialect = dialect
        self._key = key
        self._told: dict[str, bool] = {}

    def tell(self, key: str, *, is_accepted: bool) -> None:
        """Accept or reject one key from now on. Raises ValueError when there are too many."""
        if key not in self._told and len(self._told) >= KEYS_MAX:
            raise ValueError(f"more than {KEYS_MAX} keys")
        self._told[key] = is_accepted

    def check(self, request: web.Request) -> str:
        """Return the key of the request, which pays for it; raises Refusal for a bad one."""
        key = self._dialect.find_key(request.headers, request.path)
        if not key and self._dialect.is_key_required:
            raise self._dialect.missing_key()
        if not self._is_good(key):
            raise self._dialect.wrong_key(key)
        return key

    def _is_good(self, key: str) -> bool:
        told = self._told.get(key)
        if told is not None:
            return told
        if self._key is not None:
            return hmac.compare_digest(key.encode(), self._key.get_secret_value().encode())
        prefix = self._dialect.key_prefix
        return not prefix or (key.startswith(prefix) and len(key) > len(prefix))
