"""Ports in memory; `tests/real/test_ports.py` holds them to what the real ones promise."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from authz.limits.answer import BucketState, LimitAnswer, LimitUse, to_answer
from authz.protos.ext_authz_pb2 import (
    Address,
    AttributeContext,
    CheckRequest,
    HeaderMap,
    HeaderValue,
    SocketAddress,
)
from authz.request import AuthRequest
from meter.clock import Clock
from meter.errors import StoreUnavailable
from meter.holds.hold import HoldAnswer, HoldPlaced, HoldRefused, HoldRequest, Refusal
from meter.identity.principal import (
    ByAccount,
    ByCertificate,
    ByIdentity,
    ByKey,
    ByPass,
    Presented,
    Principal,
)
from meter.jwts.verified import Verified
from meter.limits.limits import Limit, LimitRule, Rates
from meter.limits.rule_store import LimitRuleStore
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.pricing.prices import DEFAULT_PROVIDER, Model, Offer, Price
from meter.providers.key_refusal import KeyRefusal
from meter.providers.key_store import PostgresProviderKeys, StoredKey
from meter.providers.provider import DialectName
from meter.reconciliation.drift import ProviderTotal
from meter.routing.route import ModelAlias, Route
from meter.routing.table import RoutingTable
from meter.routing.table_store import Routing, RoutingStore
from meter.sealing import SecretText

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


def price(model_id: str = "acme/one", **picos: int) -> Price:
    """A price: 1 USD a million prompt tokens, 2 USD a million completion tokens, unless said."""
    terms: dict[str, Any] = {"prompt_picos": 1_000_000, "completion_picos": 2_000_000, **picos}
    return Price(id=1, model_id=model_id, effective_from=EPOCH, **terms)


def model(
    model_id: str = "acme/one", context: int = 128_000, longest: int = 4_096, **picos: int
) -> Model:
    """A model of the catalogue."""
    return Model(model_id, model_id, context, longest, price(model_id, **picos))


def principal(
    allowed_models: frozenset[str] | None = None,
    requests_per_minute: int | None = None,
    is_suspended: bool = False,
) -> Principal:
    """The principal that acts in most tests."""
    return Principal(
        credential_id="credential",
        account_id="account",
        model_lists=() if allowed_models is None else (allowed_models,),
        markup_bps=0,
        account_rates=Rates(requests_per_minute),
        is_suspended=is_suspended,
    )


class FakeHolds:
    """One account's money in memory. `refusal` and `is_away` decide every answer.

    `placed` are all holds that were ever placed, with their amounts in `open_picos` while open.

    `reached` is set by the first call of `place`, which then waits at the `gate`, if there is one.
    """

    def __init__(self, available_picos: int = 10**12) -> None:
        self.available_picos = available_picos
        self.refusal: Refusal | None = None
        self.is_away = False
        self.wait_s = 0.0
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.placed: dict[UUID, HoldRequest] = {}
        self.open_picos: dict[UUID, int] = {}
        self.released: list[UUID] = []

    def expected_wait_s(self, account_id: str) -> float:
        """Return `wait_s`."""
        return self.wait_s

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Grant as many tokens as the money covers, as the real store does."""
        self.reached.set()
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                # As the real store, which releases the hold of a cancelled call by itself.
                self.release_later([request.hold_id])
                raise
        if self.is_away:
            raise StoreUnavailable("away")
        bound = request.estimate
        needed = bound.fixed_picos + bound.per_token_picos * bound.min_tokens
        available = self.available_picos - sum(self.open_picos.values())
        if self.refusal is not None:
            return HoldRefused(self.refusal, needed, available)
        # An own key without a fee uses no credit, so a debt is not in its way.
        uses_nothing = bound.markup_bps < 0 and not (bound.fixed_picos or bound.per_token_picos)
        if needed > available and not uses_nothing:
            return HoldRefused(Refusal.INSUFFICIENT, needed, available)
        tokens = bound.max_tokens
        if bound.per_token_picos:
            tokens = min(tokens, (available - bound.fixed_picos) // bound.per_token_picos)
        self.placed[request.hold_id] = request
        amount = bound.fixed_picos + bound.per_token_picos * tokens
        self.open_picos[request.hold_id] = amount
        return HoldPlaced(request.hold_id, amount, tokens)

    async def find_available(self, account_id: str) -> int:
        """Return what is available."""
        if self.is_away:
            raise StoreUnavailable("away")
        return self.available_picos

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """End holds; returns how many were open."""
        still_open = self.open_picos.keys() & set(hold_ids)
        self.release_later(hold_ids)
        return len(still_open)

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """End holds at once."""
        self.released.extend(hold_ids)
        for hold_id in hold_ids:
            self.open_picos.pop(hold_id, None)


class FakePrincipals:
    """Principals by digest, `jti`, (issuer, subject), name or account; counts the look-ups."""

    def __init__(self, known: Mapping[object, Principal] | None = None) -> None:
        self.known = dict(known or {})
        self.is_away = False
        self.gate: asyncio.Event | None = None
        self.lookups = 0

    async def find(self, presented: Presented) -> Principal | None:
        """Return the principal that is known under what the value presents."""
        match presented:
            case ByKey(digest):
                key: object = digest
            case ByPass(verified):
                key = verified.pass_id
            case ByIdentity(verified):
                key = (verified.issuer_id, verified.subject)
            case ByCertificate(name):
                key = name
            case ByAccount(account_id):
                key = ("account", account_id)
        self.lookups += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return self.known.get(key)


class FakeJwts:
    """Verified JWTs by their text."""

    def __init__(self, known: Mapping[str, Verified] | None = None) -> None:
        self.known = dict(known or {})

    async def verify(self, text: str) -> Verified | None:
        """Return what it says, if known."""
        return self.known.get(text)


class FakeLimitRules(LimitRuleStore):
    """Limit rules."""

    def __init__(self, *rules: LimitRule) -> None:
        self.rules = rules

    async def list_all(self) -> list[LimitRule]:
        """All of them, in order of their ids."""
        return sorted(self.rules, key=lambda rule: rule.id)


class FakeCatalogue(PostgresCatalogue):
    """Models by id."""

    def __init__(self, *models: Model) -> None:
        self.models = {found.id: found for found in models}
        self.offers: list[Offer] = []
        self.is_away = False

    async def load_models(self) -> dict[str, Model]:
        """All of them."""
        if self.is_away:
            raise StoreUnavailable("away")
        return dict(self.models)

    async def load_offers(self) -> list[Offer]:
        """The offers of other providers; none at first."""
        return list(self.offers)


class FakeRouting(RoutingStore):
    """Routes, aliases and the dialects of enabled providers; OpenRouter alone at first."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.aliases: list[ModelAlias] = []
        self.dialects = {DEFAULT_PROVIDER: DialectName.OPENROUTER}

    async def load(self, listed: Mapping[str, Model], offers: Iterable[Offer]) -> Routing:
        """The table of them."""
        enabled = frozenset(self.dialects)
        table = RoutingTable(listed, offers, self.routes, self.aliases, enabled)
        return Routing(table, dict(self.dialects))


class FakeProviderKeys(PostgresProviderKeys):
    """One key for every provider but those of `others`; `failure` is raised instead."""

    def __init__(self, key: str | None = "sk-or-planted") -> None:
        self.key = key
        self.others: dict[str, StoredKey | None] = {}
        self.failure: Exception | None = None
        self.refusal: KeyRefusal | None = None

    async def find_key(self, provider: str, owner: str) -> StoredKey | None:
        """The key, if set."""
        if self.failure is not None:
            raise self.failure
        if provider in self.others:
            return self.others[provider]
        return None if self.key is None else StoredKey(SecretText(self.key), 1, EPOCH, self.refusal)


class NoProviderTotals:
    """A provider that gives no totals."""

    async def find_total(self) -> ProviderTotal | None:
        """Return None."""
        return None


class FakeLimiter:
    """Each bucket admits its limit once, and is full again after `clock` went on by a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], list[float]] = {}
        self.uses: list[LimitUse] = []

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        """Never certain."""
        return None

    async def take(self, uses: Sequence[LimitUse]) -> LimitAnswer:
        """All or none."""
        self.uses.extend(uses)
        now_s = self._clock.monotonic_s()
        states = []
        for use in uses:
            limit, used = use.limit, self._used.setdefault((use.limit.kind, use.limit.bucket), [])
            used[:] = [at_s for at_s in used if at_s > now_s - 60]
            spare = limit.most - len(used) - use.amount
            wait_s = 0.0 if spare >= 0 else (used[0] + 60 - now_s if used else 60.0)
            states.append(BucketState(spare, int(wait_s * 1_000_000), 60_000_000))
        answer = to_answer(uses, states)
        if answer.refused_by is None:
            for use in uses:
                self._used[use.limit.kind, use.limit.bucket] += [now_s] * use.amount
        return answer


def to_check(request: AuthRequest) -> bytes:
    """Write a request as Envoy would send it under `encode_raw_headers`."""
    headers = [HeaderValue(key=k, raw_value=v.encode("latin-1")) for k, v in request.headers]
    http = AttributeContext.HttpRequest(
        method=request.method,
        path=request.path,
        raw_body=request.body,
        size=len(request.body),
        header_map=HeaderMap(headers=headers),
    )
    peer = AttributeContext.Peer(
        address=Address(socket_address=SocketAddress(address=request.peer)),
        principal=request.certificate,
    )
    attributes = AttributeContext(
        source=peer,
        request=AttributeContext.Request(http=http),
        context_extensions=dict(request.extensions),
    )
    return CheckRequest(attributes=attributes).SerializeToString()


class FakeRedisOfBodies:
    """A Redis that is away, so that large bodies are counted by the process alone."""

    def register_script(self, _: str) -> Callable[..., Awaitable[int]]:
        """Return a script that fails."""

        async def fails(*_: object) -> int:
            raise ConnectionError("away")

        return fails
