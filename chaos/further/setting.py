"""Two more providers with a route over them, and accounts that pay with keys of their own."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from chaos.customers import Administrator, Customer
from chaos.failover.providers import Fleet, running_fleet
from chaos.failover.setting import Gateway, provider_id
from chaos.stack import ChaosStack
from chaos.upstream import DEFAULT_PROVIDER, BillRow, Upstream

NAMES: Final = ("openai", "openai-2")
# Both at the listed price.
PRICE_FACTORS: Final = (1, 1)
OWNERS_SCOPES: Final = ("usage:read", "keys:write")
# Without credit: all that this account asks goes out with its own key, or not at all.
NO_CREDIT: Final = "0"
MUCH_CREDIT: Final = "500"


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key of a provider that an account has stored."""

    account_id: str
    provider: str
    plain: str = field(repr=False)

    @property
    def sha256(self) -> str:
        """Return the digest by which the provider's bill names the key that pays."""
        return hashlib.sha256(self.plain.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Further:
    """The further providers of a campaign, what reaches them, and the keys that accounts stored."""

    fleet: Fleet
    upstreams: tuple[Upstream, ...]
    own_keys: tuple[OwnKey, ...]

    def bills(self) -> dict[str, list[BillRow]]:
        """Return the bill of each provider by its id in our books."""
        return {provider_id(one): one.bill() for one in self.fleet.providers}


@contextlib.contextmanager
def maybe_fleet(folder: Path, is_wanted: bool) -> Iterator[Fleet | None]:
    """Run the further providers during the block, if the campaign has any."""
    if not is_wanted:
        yield None
        return
    bills = folder / "further"
    bills.mkdir()
    with running_fleet(bills, NAMES) as fleet:
        yield fleet


async def set_up(
    fleet: Fleet,
    stack: ChaosStack,
    session: aiohttp.ClientSession,
    administrator: Administrator,
    customers: list[Customer],
    behaviours: list[dict[str, Any]],
) -> Further:
    """Create providers and route; add accounts with own keys to the customers."""
    upstreams = tuple(Upstream(one.origin, session) for one in fleet.providers)
    await Gateway(stack, session).set_up(fleet, customers[0].key, PRICE_FACTORS)
    for one in upstreams:
        # No other dialect than OpenRouter's has failures that are billed.
        await one.behave([{**behaviour, "billed": False} for behaviour in behaviours])
    own_keys = (
        OwnKey("owner-everywhere", DEFAULT_PROVIDER, "sk-or-own-key-of-the-campaign"),
        OwnKey("owner-direct", provider_id(fleet.providers[0]), "sk-own-key-of-the-campaign"),
    )
    for key, credit in zip(own_keys, (NO_CREDIT, MUCH_CREDIT), strict=True):
        if key.provider == DEFAULT_PROVIDER:
            simulator = Upstream(stack.endpoint("simulator"), session)
            await simulator.accept(key.plain)
        customers.append(await _open_owner(stack, session, administrator, key, credit))
    return Further(fleet, upstreams, own_keys)


async def _open_owner(
    stack: ChaosStack,
    session: aiohttp.ClientSession,
    administrator: Administrator,
    own: OwnKey,
    credit_usd: str,
) -> Customer:
    customer = await administrator.open_account(own.account_id, credit_usd)
    keeper = await administrator.issue(own.account_id, "keeper", OWNERS_SCOPES)
    async with session.put(
        f"{stack.endpoint('api')}/api/v1/provider-keys/{own.provider}",
        json={"key": own.plain},
        headers={"Authorization": f"Bearer {keeper}"},
    ) as reply:
        if reply.status != 204:
            raise RuntimeError(f"an own key is not stored: {reply.status} {await reply.text()}")
    # Not one of the poor, who are topped up.
    return Customer(customer.id, customer.markup_bps, is_poor=False, key=customer.key)
