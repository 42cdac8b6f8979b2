"""The provider keys of accounts, opened, for the checks of accounts that have stored some.

Only principals with `has_own_keys` are asked about here, so that others pay nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Final

from authz.decision import Deny, Reason, deny
from authz.fresh_answers import MAX_ANSWER_AGE_S, FreshAnswer, FreshAnswers, SharedLookups
from meter.clock import Clock
from meter.identity.principal import OwnKeyMode, Principal
from meter.providers.key_store import OwnKey
from meter.sealing import SecretText
from meter.values import light_value

# A deletion takes effect within this time, and the time that a decision takes.
MAX_AGE_S: Final = 0.5
# Accounts whose opened keys are kept in memory.
MAX_CACHED: Final = 10_000


@light_value
class OwnKeys:
    """The keys of an account by provider, and when they were read, on the monotonic clock."""

    by_provider: Mapping[str, OwnKey]
    read_at_s: float

    def may_be_used_at(self, now_s: float) -> bool:
        """Return whether a decision that leaves now may carry one of the keys."""
        return now_s - self.read_at_s < MAX_ANSWER_AGE_S


@light_value
class OwnKeyUse:
    """The own key that a request goes out with, and the provider that it belongs to."""

    provider: str
    plain: SecretText = field(repr=False)


def choose_own_key(
    principal: Principal, keys: OwnKeys, providers: Sequence[str]
) -> OwnKeyUse | Deny | None:
    """Return the own key for a model that these providers serve, in the order of preference.

    None where the request goes out with our key, for credit. A key that the provider refused lately
    is passed over where the account lets credit pay meanwhile; elsewhere it is used again, because
    only the provider knows whether it works by now.
    """
    terms = principal.own_key_terms
    stored = [one for one in providers if one in keys.by_provider]
    for provider in stored:
        key = keys.by_provider[provider]
        if key.plain is not None and not (key.is_refused and terms.may_fall_back_to_credit):
            return OwnKeyUse(provider, key.plain)
    if terms.mode is not OwnKeyMode.ONLY and (terms.may_fall_back_to_credit or not stored):
        return None
    if not stored:
        return deny(
            Reason.NO_OWN_KEY,
            "The account uses provider keys of its own only, and has none for this model. Store a"
            f" key of {' or '.join(providers)} with PUT /api/v1/provider-keys/{providers[0]}, or"
            " change the mode of the account or of the API key.",
            "model",
        )
    provider = stored[0]
    key = keys.by_provider[provider]
    if key.plain is not None:
        # In the mode `only` there is no credit to fall back to.
        return OwnKeyUse(provider, key.plain)
    return deny(
        Reason.OWN_KEY_REJECTED,
        f"The key that the account has stored for {provider} cannot be opened any more. Store it"
        f" again with PUT /api/v1/provider-keys/{provider}.",
    )


# Opens the keys of an account, by provider; raises StoreUnavailable.
FindOwnKeys = Callable[[str], Awaitable[Mapping[str, OwnKey]]]


class OwnKeyCache:
    """Opened keys by account, each entry at most `max_age_s` old, and at most `max_cached`.

    `find_own_keys` is that of `PostgresProviderKeys`.
    """

    def __init__(
        self,
        find_own_keys: FindOwnKeys,
        clock: Clock,
        max_age_s: float = MAX_AGE_S,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._find_own_keys = find_own_keys
        self._max_age_s = max_age_s
        self._found: FreshAnswers[str, OwnKeys] = FreshAnswers(max_cached, clock)
        self._lookups: SharedLookups[str, OwnKeys] = SharedLookups(clock)

    async def find(self, account_id: str) -> OwnKeys:
        """Return the keys of an account, at most MAX_ANSWER_AGE_S old.

        Raises StoreUnavailable when they are not cached and Postgres is away.
        """
        found = self._found.get(account_id)
        if found is None:
            found = await self._lookups.find(account_id, partial(self._look_up, account_id))
        return found.value

    async def _look_up(self, account_id: str, began_s: float) -> FreshAnswer[OwnKeys]:
        # The age counts from the beginning: the store may have read the rows at any time since.
        keys = OwnKeys(await self._find_own_keys(account_id), began_s)
        found = FreshAnswer(keys, began_s, began_s + self._max_age_s)
        self._found.put(account_id, found)
        return found
