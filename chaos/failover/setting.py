"""Three providers and the route over them, as an administrator sets them up."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from chaos.failover.providers import Fleet, SimulatedProvider
from chaos.stack import ChaosStack

MODEL: Final = "openai/gpt-4o-mini"
NAMES: Final = ("openai", "openai-2", "openai-3")
# How many times dearer than listed each provider is.
PRICE_FACTORS: Final = (1, 2, 3)
# US dollars for a million tokens, as the simulator's table has them.
LISTED_USD: Final = {"prompt": "0.15", "completion": "0.6", "cache_read": "0.075"}
PATIENCE_S: Final = 240.0
LOOK_EVERY_S: Final = 0.3


def provider_id(provider: SimulatedProvider) -> str:
    """Return the id of a provider in our books."""
    return f"failing-{provider.name}"


def provider_key(provider: SimulatedProvider) -> str:
    """Return our key of a provider."""
    return f"sk-{provider.name}-0123456789"


class Gateway:
    """The steps of an administrator before the load begins."""

    def __init__(self, stack: ChaosStack, session: aiohttp.ClientSession) -> None:
        self._base = f"{stack.endpoint('api')}/api/v1/admin"
        self._chat = f"{stack.endpoint('gateway')}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {stack.operator_token}"}
        self._session = session

    async def set_up(
        self, fleet: Fleet, key: str, price_factors: Sequence[int] = PRICE_FACTORS
    ) -> None:
        """Create the providers with their keys and prices, and a route that asks them in turn.

        Returns once a request with `key` is served by the first of them. Raises TimeoutError.
        """
        for provider, factor in zip(fleet.providers, price_factors, strict=True):
            name = provider_id(provider)
            terms = {"name": name, "dialect": "openai", "base_url": provider.base_url}
            await self._call("POST", "providers", terms)
            price = {
                f"{kind}_usd_per_million": f"{Decimal(usd) * factor:f}"
                for kind, usd in LISTED_USD.items()
            }
            listed = {"prices": [{"model": MODEL, **price}]}
            await self._call("POST", f"providers/{name}/prices", listed)
            await self._call("PUT", f"providers/{name}/key", {"key": provider_key(provider)})
        providers = [
            {"provider": provider_id(one), "priority": place, "weight": 1}
            for place, one in enumerate(fleet.providers)
        ]
        route = {"pattern": MODEL, "providers": providers, "position": 1}
        async with asyncio.timeout(PATIENCE_S):
            # A route is refused until its providers offer the model.
            while not await self._may("PUT", "routes/failing", route):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY_S)
            before = len(fleet.providers[0].bill())
            while len(fleet.providers[0].bill()) == before:
                await self._ask(key)
                await asyncio.sleep(LOOK_EVERY_S)

    async def _ask(self, key: str) -> None:
        body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"Authorization": f"Bearer {key}"}
        async with self._session.post(self._chat, json=body, headers=headers) as reply:
            await reply.read()

    async def _call(self, method: str, path: str, content: dict[str, Any]) -> None:
        url = f"{self._base}/{path}"
        async with self._session.request(method, url, json=content, headers=self._headers) as reply:
            if reply.status >= HTTPStatus.BAD_REQUEST:
                raise RuntimeError(f"{method} {path}: {reply.status} {await reply.text()}")

    async def _may(self, method: str, path: str, content: dict[str, Any]) -> bool:
        url = f"{self._base}/{path}"
        async with self._session.request(method, url, json=content, headers=self._headers) as reply:
            return reply.status < HTTPStatus.BAD_REQUEST
