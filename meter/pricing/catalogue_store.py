"""The catalogue of models and their effective-dated prices, in Postgres."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from meter.postgres.pool import PostgresConnection, PostgresPool, acquire, queries
from meter.postgres.rows import from_row
from meter.pricing.prices import (
    DEFAULT_PROVIDER,
    TIER_STARTS_AT,
    Model,
    Offer,
    OfferedModel,
    Price,
    PriceOrigin,
    PriceTier,
    WithheldModel,
)

if TYPE_CHECKING:
    from asyncpg import Record

_QUERIES: Final = queries("meter.pricing")
_LOAD_FACTORS: Final = _QUERIES["load_factors"]
_LOAD_MODELS: Final = _QUERIES["load_models"]
_LOAD_OFFERS: Final = _QUERIES["load_offers"]
_LOAD_PROVIDER_PRICES: Final = _QUERIES["load_provider_prices"]
_LOCK_CATALOGUE: Final = _QUERIES["lock_catalogue"]
_SAVE_MODELS: Final = _QUERIES["save_models"]
_SAVE_OFFERS: Final = _QUERIES["save_offers"]
_SAVE_PRICES: Final = _QUERIES["save_prices"]
_SAVE_CATALOGUE_SYNC: Final = _QUERIES["save_catalogue_sync"]
_NOTE_SYNC_FAILURE: Final = _QUERIES["note_sync_failure"]
_SAVE_WITHHELD: Final = _QUERIES["save_withheld"]
_LIST_WITHHELD: Final = _QUERIES["list_withheld"]
MAX_FAILURE_CHARS: Final = 500
# In the order of the parameters of save_prices.sql.
_PRICE_COLUMNS: Final = (
    "id",
    "prompt_picos",
    "completion_picos",
    "request_picos",
    "image_picos",
    "web_search_picos",
    "reasoning_picos",
    "cache_read_picos",
    "cache_write_picos",
    "cache_write_1h_picos",
    "image_token_picos",
    "image_output_picos",
    "audio_picos",
    "audio_output_picos",
    "audio_cache_picos",
)


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model with the provider's own description of it, for `GET /v1/models`."""

    model: Model
    listing: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KnownPrice:
    """A price in force, and who said so."""

    price: Price
    origin: PriceOrigin


@dataclass(frozen=True, slots=True)
class WithheldListing:
    """A model that is listed and not offered, with the reason, and since when it is."""

    provider: str
    model_id: str
    reason: str
    first_seen_at: datetime


class PostgresCatalogue:
    """Loads the listed models with the prices in force, and stores the models of a sync."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load_models(self) -> dict[str, Model]:
        """Return the models of the default provider by id.

        They have the price in force and raised estimates. A model that only other providers
        offer is not among them: `load_offers` has it.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_MODELS)
            raised = await _load_factors(connection)
        return {
            row["id"]: _to_model(row, raised) for row in rows if row["provider"] == DEFAULT_PROVIDER
        }

    async def load_offers(self) -> list[Offer]:
        """Return the models that other enabled providers offer, each with its price there."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_OFFERS)
            raised = await _load_factors(connection) if rows else {}
        return [
            Offer(row["provider"], row["upstream_name"], _to_model(row, raised)) for row in rows
        ]

    async def load_prices(self, provider: str) -> dict[str, KnownPrice]:
        """Return the prices of a provider that are in force, by model, offered or not."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_PROVIDER_PRICES, provider)
        return {
            row["model_id"]: KnownPrice(
                to_price(row, row["price_id"], row["model_id"]), PriceOrigin(row["origin"])
            )
            for row in rows
        }

    async def load_listings(self) -> list[ModelListing]:
        """Return all listed models with their descriptions, in the order of their ids.

        A model that several providers offer has the price of the one whose listing defines it.
        """
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LOAD_MODELS)
        return [ModelListing(_to_model(row, {}), json.loads(row["listing"])) for row in rows]

    async def list_withheld(self) -> list[WithheldListing]:
        """Return the models that are listed and not offered, in the order of their ids."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_WITHHELD)
        return [WithheldListing(**row) for row in rows]

    async def save(
        self,
        provider: str,
        offered: Sequence[OfferedModel],
        withheld: Sequence[WithheldModel] = (),
        doubted: Collection[str] = (),
    ) -> int:
        """Make the catalogue equal to the models on offer; return how many prices are new.

        Models whose prices are doubted keep those in force, and a price of an administrator stays
        in any case. Models that are offered no more are unlisted, never deleted: their usage stays.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_CATALOGUE)
            await connection.execute(
                _SAVE_MODELS,
                [model.id for model in offered],
                [model.name for model in offered],
                [model.context_length for model in offered],
                [model.max_completion_tokens for model in offered],
                [json.dumps(model.listing) for model in offered],
                [model.unasked_searches for model in offered],
                provider,
            )
            if provider != DEFAULT_PROVIDER:
                await connection.execute(
                    _SAVE_OFFERS,
                    provider,
                    [model.id for model in offered],
                    [model.upstream_name or model.id for model in offered],
                    [model.context_length for model in offered],
                    [model.max_completion_tokens for model in offered],
                )
            priced = [model for model in offered if model.id not in doubted]
            columns = [[getattr(model, name) for model in priced] for name in _PRICE_COLUMNS]
            tiers = [json.dumps([dict(tier) for tier in model.tiers]) for model in priced]
            origins = [model.origin.value for model in priced]
            new_prices: int = await connection.fetchval(
                _SAVE_PRICES, *columns, tiers, origins, provider
            )
            await connection.execute(
                _SAVE_WITHHELD,
                provider,
                [model.id for model in withheld],
                [model.reason for model in withheld],
            )
            await connection.execute(_SAVE_CATALOGUE_SYNC, provider, len(offered))
        return new_prices

    async def note_failure(self, provider: str, failure: str) -> None:
        """Store why the catalogue of a provider cannot be synced."""
        async with acquire(self._pool) as connection:
            await connection.execute(_NOTE_SYNC_FAILURE, provider, failure[:MAX_FAILURE_CHARS])


async def _load_factors(connection: PostgresConnection) -> dict[str, dict[str, int]]:
    """Return the factors of raised estimates, by model and endpoint."""
    raised: dict[str, dict[str, int]] = {}
    for model_id, endpoint, factor_bps in await connection.fetch(_LOAD_FACTORS):
        raised.setdefault(model_id, {})[endpoint] = factor_bps
    return raised


def _to_model(row: "Record", raised: Mapping[str, Mapping[str, int]]) -> Model:
    price = to_price(row, row["price_id"], row["id"])
    return from_row(Model, row, price=price, raised_bps=raised.get(row["id"], {}))


def to_price(row: "Record", price_id: int, model_id: str) -> Price:
    """Read the price columns of a row."""
    picos = {name: row[name] for name in _PRICE_COLUMNS[1:]}
    price = Price(price_id, model_id, row["effective_from"], **picos, provider=row["provider"])
    tiers = json.loads(row["tiers"])
    return replace(price, tiers=tuple(_to_tier(price, tier) for tier in tiers)) if tiers else price


def _to_tier(price: Price, tier: dict[str, int]) -> PriceTier:
    differing: dict[str, Any] = {
        name: picos for name, picos in tier.items() if name != TIER_STARTS_AT
    }
    return PriceTier(tier[TIER_STARTS_AT], replace(price, **differing))
