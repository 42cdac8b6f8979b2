"""A snapshot of models, provider's key and limit rules, refreshed in the background.

The snapshot stays in use during an outage of Postgres: a price that is a few seconds old still
bounds a request, and no request passes without Postgres anyway, because no hold can be placed.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import structlog

from authz.metrics import Metrics
from meter.errors import Outage, ProviderUnavailable, SealBroken, StoreUnavailable
from meter.limits.limits import LimitRule
from meter.limits.rule_store import LimitRuleStore
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import Model
from meter.process.periodic import periodic, until_done
from meter.providers import openrouter
from meter.providers.key_refusal import KeyRefusal
from meter.providers.key_store import SYSTEM_OWNER, PostgresProviderKeys, StoredKey
from meter.sealing import SecretText

FIRST_LOAD_INTERVAL_S: Final = 0.1

_log = structlog.get_logger(__name__)


class KeyState(StrEnum):
    """The state of the provider's key.

    `sealed` when our master key does not open it, `refused` when the provider does not accept it.
    """

    UNKNOWN = "unknown"
    OK = "ok"
    REFUSED = "refused"
    MISSING = "missing"
    SEALED = "sealed"


class CatalogueSnapshot:
    """The models, the provider's key and the limit rules, as they were last loaded."""

    def __init__(
        self,
        catalogue: PostgresCatalogue,
        keys: PostgresProviderKeys,
        rules: LimitRuleStore,
        metrics: Metrics,
    ) -> None:
        self._catalogue = catalogue
        self._keys = keys
        self._limit_rules = rules
        self._rules: Sequence[LimitRule] = ()
        self._metrics = metrics
        self._models: Mapping[str, Model] = {}
        self._key: StoredKey | None = None
        self.key_state = KeyState.UNKNOWN

    @property
    def is_loaded(self) -> bool:
        """Return whether there is any model: an empty catalogue has not been synced yet."""
        return bool(self._models)

    @property
    def models(self) -> Mapping[str, Model]:
        """Return the listed models by id. Raises StoreUnavailable while there are none."""
        if not self._models:
            raise StoreUnavailable("the catalogue has not been loaded yet")
        return self._models

    @property
    def provider_key(self) -> SecretText:
        """Return the key to call the provider with. Raises ProviderUnavailable without one."""
        if self._key is None:
            raise ProviderUnavailable("no usable provider key is set")
        return self._key.plain

    @property
    def key_refusal(self) -> KeyRefusal | None:
        """Return the provider's last refusal of the key; requests are sent all the same."""
        return None if self._key is None else self._key.refusal

    @property
    def rules(self) -> Sequence[LimitRule]:
        """Return the limit rules in force."""
        return self._rules

    async def refresh(self) -> None:
        """Load everything anew. Raises StoreUnavailable when Postgres does not answer."""
        models = await self._catalogue.load_models()
        self._rules = await self._limit_rules.list_all()
        try:
            self._key = await self._keys.find_key(openrouter.ID, SYSTEM_OWNER)
        except SealBroken:
            self._key = None
            self._note_key(KeyState.SEALED)
        else:
            if self._key is None:
                self._note_key(KeyState.MISSING)
            else:
                self._note_key(KeyState.OK if self._key.refusal is None else KeyState.REFUSED)
        self._models = models
        self._metrics.models.set(len(models))

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

    def _note_key(self, state: KeyState) -> None:
        if state is not self.key_state:
            _log.info("provider_key_state", state=state.value)
        self.key_state = state
