"""The faults of the providers, decided by a seed, and how they are brought about."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from chaos.failover.providers import Fleet, SimulatedProvider

EVERY_S: Final = 0.4
REFUSES: Final = "refuses connections"
# Each fault with how often it is drawn, and what the simulator is told.
FAULTS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "none": (8, {}),
    "429": (3, {"status": 429}),
    "503": (3, {"status": 503}),
    "dies before the reply": (1, {"cut_before_reply": True}),
    "dies in the reply": (1, {"cut_after_bytes": 200}),
    "slow": (1, {"delay_ms": 300}),
    REFUSES: (2, {}),
}


class Nemesis:
    """Changes the fault of one provider after another."""

    def __init__(
        self,
        fleet: Fleet,
        price_factors: Sequence[int],
        session: aiohttp.ClientSession,
        seed: int,
    ) -> None:
        self._fleet = fleet
        self._price_factors = dict(zip(fleet.providers, price_factors, strict=True))
        self._session = session
        self._draw = random.Random(f"failover {seed}")
        self._refusing: set[SimulatedProvider] = set()
        self.caused: Counter[str] = Counter()

    async def calm(self) -> None:
        """Let all providers work, each at its price."""
        for provider in self._fleet.providers:
            await self._bring(provider, "none")

    async def run(self) -> None:
        """Bring faults about until it is cancelled."""
        names = list(FAULTS)
        weights = [weight for weight, _ in FAULTS.values()]
        while True:
            provider = self._draw.choice(self._fleet.providers)
            (fault,) = self._draw.choices(names, weights)
            await self._bring(provider, fault)
            self.caused[fault] += 1
            await asyncio.sleep(EVERY_S)

    async def _bring(self, provider: SimulatedProvider, fault: str) -> None:
        if provider in self._refusing:
            # Its control interface is at the same address.
            await self._fleet.listen(self._session, provider, is_listening=True)
            self._refusing.remove(provider)
        # A dearer provider: its own list of prices says so too.
        behaviour = {"price_factor": self._price_factors[provider], **FAULTS[fault][1]}
        url = f"{provider.origin}/control/behaviours"
        # At once: between two calls, a request would be billed at another price.
        async with self._session.put(url, json=behaviour) as reply:
            reply.raise_for_status()
        if fault == REFUSES:
            await self._fleet.listen(self._session, provider, is_listening=False)
            self._refusing.add(provider)
