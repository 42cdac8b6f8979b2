"""A snapshot of models, providers with their keys, and limit rules, refreshed in the background.

The snapshot stays in use during an outage of Postgres: a price that is a few seconds old still
bounds a request, and no request passes without Postgres anyway, because no hold can be placed.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import structlog

from authz.metrics import Metrics
from authz.routing.providers import Providers
from meter.errors import Outage, ProviderUnavailable, SealBroken, StoreUnavailable
from meter.limits.limits import LimitRule
from meter.limits.rule_store import LimitRuleStore
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import Model
from meter.process.periodic import periodic, until_done
from meter.providers import openrouter
from meter.providers.dialects import DIALECTS
from meter.providers.key_refusal import KeyRefusal
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys, StoredKey
from meter.routing.table import RoutingTable
from meter.routing.table_store import RoutingStore
from meter.sealing import SecretText

FIRST_LOAD_INTERVAL_S: Final = 0.1

_log = structlog.get_logger(__name__)


class KeyState(StrEnum):
    """The state of the key of a provider, or the worst state of those of all enabled providers.

    `sealed` when our master key does not open it, `refused` when the provider does not accept it,
    `missing` when the provider needs one and none is set.
    """

    UNKNOWN = "unknown"
    OK = "ok"
    REFUSED = "refused"
    MISSING = "missing"
    SEALED = "sealed"


_FROM_BEST: Final = (KeyState.OK, KeyState.REFUSED, KeyState.MISSING, KeyState.SEALED)


class CatalogueSnapshot:
    """The models, the providers and their keys, and the limit rules, as they were last loaded.

    `key_state` is the worst of the keys of the enabled providers.
    """

    def __init__(
        self,
        catalogue: PostgresCatalogue,
        keys: PostgresProviderKeys,
        rules: LimitRuleStore,
        routing: RoutingStore,
        metrics: Metrics,
    ) -> None:
        self._catalogue = catalogue
        self._keys = keys
        self._routing = routing
        self._limit_rules = rules
        self._rules: Sequence[LimitRule] = ()
        self._metrics = metrics
        self._models: Mapping[str, Model] = {}
        self._key: StoredKey | None = None
        self._key_states: Mapping[str, KeyState] = {}
        self.providers = Providers(RoutingTable({}), {}, {})
        self.key_state = KeyState.UNKNOWN

    @property
    def is_loaded(self) -> bool:
        """Return whether there is any model: an empty catalogue has not been synced yet."""
        return bool(self._models)

    @property
    def models(self) -> Mapping[str, Model]:
        """Return the models by every name that a request may use.

        Raises StoreUnavailable while there are none.
        """
        if not self._models:
            raise StoreUnavailable("the catalogue has not been loaded yet")
        return self._models

    @property
    def all_models(self) -> Iterable[Model]:
        """Return every model of every provider. Raises StoreUnavailable while there are none."""
        table = self.providers.table
        return self.models.values() if table.is_plain else table.all_models

    @property
    def provider_key(self) -> SecretText:
        """Return our key of OpenRouter. Raises ProviderUnavailable without one."""
        if self._key is None:
            raise ProviderUnavailable("no usable provider key is set")
        return self._key.plain

    def find_key_refusal(self, provider: str) -> KeyRefusal | None:
        """Return a provider's last refusal of our key; requests are sent all the same."""
        key = self.providers.keys.get(provider)
        return None if key is None else key.refusal

    @property
    def rules(self) -> Sequence[LimitRule]:
        """Return the limit rules in force."""
        return self._rules

    async def refresh(self) -> None:
        """Load everything anew. Raises StoreUnavailable when Postgres does not answer."""
        listed = await self._catalogue.load_models()
        offers = await self._catalogue.load_offers()
        routing = await self._routing.load(listed, offers)
        self._rules = await self._limit_rules.list_all()
        keys, states = {}, {}
        for provider, dialect in routing.dialects.items():
            try:
                key = await self._keys.find_key(provider, SYSTEM_OWNER)
            except SealBroken:
                states[provider] = KeyState.SEALED
                continue
            if key is not None:
                keys[provider] = key
                states[provider] = KeyState.OK if key.refusal is None else KeyState.REFUSED
            elif DIALECTS[dialect].needs_key:
                states[provider] = KeyState.MISSING
        self._note_keys(states)
        self._key = keys.get(openrouter.ID)
        self.providers = Providers(routing.table, routing.dialects, keys)
        self._models = routing.table.models
        self._metrics.models.set(len(self._models))

    async def keep_fresh(self, interval_s: float) -> None:
        """Refresh until cancelled, and often until there is a first model."""

        async def load_first() -> None:
            await self.refresh()
            if not self.is_loaded:
                raise StoreUnavailable("the catalogue has no model yet")

        outages = (Outage,)
        await until_done("catalogue_load", load_first, FIRST_LOAD_INTERVAL_S, outages)
        await periodic(
            "catalogue_refresh",
            self.refresh,
            interval_s,
            interval_s,
            outages,
            first_after_s=interval_s,
        )

    def _note_keys(self, states: Mapping[str, KeyState]) -> None:
        for provider, state in states.items():
            if state is not self._key_states.get(provider):
                _log.info("provider_key_state", provider=provider, state=state.value)
        self._key_states = states
        self.key_state = max(states.values(), key=_FROM_BEST.index, default=KeyState.OK)
