"""Explanations on real stores: they agree with decisions, say what is wrong, and change nothing."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from authz.callers.authenticate import Authenticator
from authz.catalogue import CatalogueSnapshot
from authz.decide import Decider, Terms
from authz.decision import Deny
from authz.explain.explainer import Explainer
from authz.explain.explanation import Explanation, Outcome, Verdict
from authz.limits.answer import LimitAnswer, LimitUse
from authz.limits.counting import Limits
from authz.limits.local_limiter import LocalLimiter
from authz.limits.redis_limiter import RedisLimiter
from authz.metrics import Metrics
from authz.request import AuthRequest
from meter.audit.events import SYSTEM
from meter.clock import SystemClock
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.keys.key_text import mint
from meter.identity.principal_store import PostgresPrincipals
from meter.jwts.verified import JwtVerification, Verified, VerifiedIdentity, VerifiedPass
from meter.jwts.verifying import JwtVerifier
from meter.limits.limits import AppliesTo, CountedPer, Limit, LimitRule
from meter.limits.redis_windows import connect
from meter.pricing.catalogue_store import PostgresCatalogue
from meter.providers.key_refusal import KeyRefusal
from meter.routing.route import Route, RouteProvider
from meter.routing.route_store import RouteStore
from meter.routing.table_store import RoutingStore
from meter.scopes import Scope
from tests.books import MODEL, PEPPER, USD, Books, Payer, offered
from tests.fakes import FakeLimitRules, FakeProviderKeys

CHAT: dict[str, Any] = {"model": MODEL, "max_tokens": 10, "messages": []}
SOON = datetime.now(UTC) + timedelta(hours=1)
PASS = VerifiedPass("pass-of-ada-0123456789", SOON)
ALICE = VerifiedIdentity(
    "acme", "alice", "alice", frozenset({Scope.INFERENCE}), None, True, None, SOON,
    SOON - timedelta(hours=2),
)  # fmt: skip
TERMS = Terms(floor_tokens=16, max_body_bytes=2**20)
COUNTED = ("accounts", "credentials", "holds", "ended_holds", "spending", "audit_log", "passes")


class KnownJwts(JwtVerifier):
    """JWTs by their text, and why all others are refused."""

    def __init__(self, **known: Verified) -> None:
        self.known = {f"{name}.{name}.x": verified for name, verified in known.items()}

    async def verify_with_reason(self, text: str) -> JwtVerification:
        verified = self.known.get(text)
        return JwtVerification(verified, "" if verified else "its signature is not good")

    async def verify(self, text: str) -> Verified | None:
        return (await self.verify_with_reason(text)).verified


class AwayNow(RedisLimiter):
    """A limiter during an outage of Redis."""

    def __init__(self) -> None:
        """Open no connection."""

    def find_refusal(self, limits: Sequence[Limit]) -> LimitAnswer | None:
        return None

    async def peek(self, uses: Sequence[LimitUse]) -> LimitAnswer | None:
        return None


@dataclass
class ExplainerSetup:
    """The service that decides and the one that explains, on the same books."""

    books: Books
    payer: Payer
    decider: Decider
    explainer: Explainer
    rules: FakeLimitRules
    jwts: KnownJwts
    keys: FakeProviderKeys
    snapshot: CatalogueSnapshot

    def request(
        self, members: object = CHAT, credential: str | None = None, **changes: Any
    ) -> AuthRequest:
        body = members if isinstance(members, bytes) else json.dumps(members).encode()
        key = credential or self.payer.plain_key
        headers = (("authorization", f"Bearer {key}"), ("content-type", "application/json"))
        given = AuthRequest("POST", "/v1/chat/completions", headers, body, peer="192.0.2.7")
        return replace(given, **changes)

    async def explain(self, members: object = CHAT, **changes: Any) -> Explanation:
        return await self.explainer.explain(self.request(members, **changes))

    async def set_key(self, **terms: Any) -> None:
        for name, value in terms.items():
            await self.books.pool.execute(
                f"UPDATE credentials SET {name} = $2 WHERE id = $1",
                self.payer.credential_id,
                value,
            )

    async def rows(self) -> list[int]:
        statement = "SELECT " + ", ".join(f"(SELECT count(*) FROM {name})" for name in COUNTED)
        return list(await self.books.pool.fetchrow(statement) or ())


@pytest_asyncio.fixture
async def setup(books: Books, redis_url: str) -> AsyncIterator[ExplainerSetup]:
    payer = await books.payer("ada", USD)
    clock, metrics = SystemClock(), Metrics(CollectorRegistry())
    keys, rules = FakeProviderKeys(), FakeLimitRules()
    known: dict[str, Verified] = {"pass": PASS, "alice": ALICE}
    jwts = KnownJwts(**known)
    limiter = RedisLimiter(connect(redis_url, 1), LocalLimiter(clock, 1), metrics, 1, clock)
    snapshot = CatalogueSnapshot(
        PostgresCatalogue(books.pool), keys, rules, RoutingStore(books.pool), metrics
    )
    await snapshot.refresh()
    principals = PostgresPrincipals(books.pool)
    decider = Decider(
        Authenticator(CredentialResolver(PEPPER, principals, jwts)),
        snapshot,
        Limits(limiter, snapshot, metrics),
        books.holds,
        clock,
        metrics,
        TERMS,
    )
    explainer = Explainer(books.pool, PEPPER, jwts, snapshot, limiter, clock, TERMS)
    yield ExplainerSetup(books, payer, decider, explainer, rules, jwts, keys, snapshot)
    await limiter.close()


def outcomes(explanation: Explanation) -> str:
    """One letter a phase: o(k), r(efused), u(ndecided), n(ot needed), - for not reached."""
    letters = {Outcome.NOT_REACHED: "-", Outcome.NOT_NEEDED: "n"}
    return "".join(letters.get(one.outcome, one.outcome.value[0]) for one in explanation.phases)


def ending(explanation: Explanation) -> str:
    """Return what is said of the phase that ended it."""
    (report,) = [
        one for one in explanation.phases if one.outcome in (Outcome.REFUSED, Outcome.UNDECIDED)
    ]
    return report.says


async def test_an_allowance_is_explained_phase_by_phase_and_nothing_happens(
    setup: ExplainerSetup,
) -> None:
    await setup.set_key(requests_per_minute=5, concurrent_requests=2, budget_day_picos=USD // 2)
    before = await setup.rows()
    for _ in range(10):
        found = await setup.explain()
    assert found.verdict is Verdict.ALLOW
    assert outcomes(found) == "ooooooooo"
    said = [one.says for one in found.phases]
    assert f"The key {setup.payer.credential_id} of the account ada" in said[1]
    assert "requests 4 of 5 left" in said[6]
    assert "1.00 USD are available (balance 1.00, held 0.00)" in said[7]
    assert "the key's budget (day) of 0.50 USD has 0.00 spent and 0.00 held" in said[7]
    assert "the key runs 0 of 2 requests" in said[7]
    assert await setup.rows() == before
    assert await setup.books.funds("ada") == (USD, 0, 0)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "path": ("r--------", {"path": "/v1/keys"}),
    "query": ("r--------", {"path": "/v1/chat/completions?x=1"}),
    "no key": ("or-------", {"headers": ()}),
    "two keys": ("or-------", {"headers": (("x-api-key", "a"), ("authorization", "Bearer b"))}),
    "nonsense": ("or-------", {"credential": "sk-123"}),
    "a bad JWT": ("or-------", {"credential": "no.such.x"}),
    "not JSON": ("ooor-----", {"members": b"{"}),
    "no such model": ("oooor----", {"members": {"model": "no/such"}}),
    "no model": ("oooor----", {"members": {"max_tokens": 1}}),
    "a bad limit": ("ooooor---", {"members": {**CHAT, "max_tokens": "9"}}),
    "unbounded": ("ooooor---", {"members": {**CHAT, "preset": "x"}}),
    "too dear": ("ooooooor-", {"members": {**CHAT, "max_tokens": 9_000_000}}),
    "an unmetered route": (
        "ooonnnono", {"path": "/any", "extensions": {"metering": "off", "scope": "usage:read"}}
    ),
    "another scope": (
        "oornnn-n-", {"extensions": {"metering": "off", "scope": "keys:write"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_explains_what_is_decided(setup: ExplainerSetup, name: str) -> None:
    expected, changes = CASES[name]
    request = setup.request(**changes)
    found = await setup.explainer.explain(request)
    decision = await setup.decider.decide(request, SystemClock().monotonic_s() + 5)
    assert outcomes(found) == expected
    if isinstance(decision, Deny):
        kind = decision.reason.value
        assert (found.verdict, found.answer.code) == (Verdict.REFUSE, kind.code)
        assert (found.answer.status, found.answer.message) == (kind.status, decision.message)
        assert ending(found)
    else:
        assert found.verdict is Verdict.ALLOW
        assert found.answer.status is None


async def test_says_what_is_really_wrong_with_a_key(setup: ExplainerSetup) -> None:
    key, at = setup.payer.plain_key, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    swapped = "a" if key[-1] != "a" else "b"
    assert "checksum is wrong" in ending(await setup.explain(credential=key[:-1] + swapped))
    assert "and this has 68" in ending(await setup.explain(credential=key[:-1]))
    never = await setup.explain(credential=mint().plain.reveal())
    assert "never was a key with this id" in ending(never)
    forged = await setup.explain(credential=mint(setup.payer.credential_id).plain.reveal())
    assert "none of its secrets" in ending(forged)
    for column, said in (
        ("revoked_at", "was revoked at 2026-01-02 03:04:05 UTC"),
        ("suspended_at", "is suspended since 2026-01-02 03:04:05 UTC"),
        ("expires_at", "expired at 2026-01-02 03:04:05 UTC"),
    ):
        await setup.set_key(**{column: at})
        found = await setup.explain()
        assert said in ending(found)
        assert found.answer.code == "invalid_api_key"
        assert key not in json.dumps(found.to_json())
        assert found.credential == f"tk-{setup.payer.credential_id}"
        await setup.set_key(**{column: None})
    await setup.books.pool.execute("UPDATE credential_secrets SET ends_at = $1", at)
    assert "this secret ended at 2026-01-02 03:04:05 UTC" in ending(await setup.explain())


async def test_says_what_is_wrong_with_a_pass(setup: ExplainerSetup) -> None:
    setup.jwts.known["pass.pass.x"] = PASS
    assert "books do not know it" in ending(await setup.explain(credential="pass.pass.x"))
    await setup.books.pool.execute(
        "INSERT INTO passes (id, credential_id, account_id, scopes, budget_picos, created_by,"
        " expires_at) VALUES ('pass-of-ada-0123456789', $1, 'ada', '{inference}', 0, 'test', $2)",
        setup.payer.credential_id,
        SOON,
    )
    spent = await setup.explain(credential="pass.pass.x")
    assert spent.answer.code == "budget_exceeded"
    assert "the pass's budget (total) of 0.00 USD" in ending(spent)
    await setup.books.pool.execute("UPDATE passes SET revoked_at = now()")
    assert "the pass was revoked at" in ending(await setup.explain(credential="pass.pass.x"))
    assert "signature is not good" in ending(await setup.explain(credential="other.pass.x"))


async def test_first_sight_of_an_identity_is_tried_out_and_undone(setup: ExplainerSetup) -> None:
    await setup.books.pool.execute(
        "INSERT INTO issuers (id, url, terms) VALUES ('acme', 'https://acme.example', '{}')"
    )
    before = await setup.rows()
    found = await setup.explain(credential="alice.alice.x")
    assert outcomes(found) == "ooooooor-"
    assert found.answer.code == "insufficient_credits"
    assert await setup.rows() == before
    setup.jwts.known["alice.alice.x"] = replace(ALICE, may_create=False)
    found = await setup.explain(credential="alice.alice.x")
    assert "No account is known for alice of acme, and none may be made" in ending(found)


async def test_says_from_where_and_for_what_a_key_may_be_used(setup: ExplainerSetup) -> None:
    await setup.set_key(allowed_addresses=["10.0.0.0/8"])
    found = await setup.explain()
    assert outcomes(found) == "oor------"
    assert "comes from 192.0.2.7, and may be used from 10.0.0.0/8" in ending(found)
    assert (await setup.explain(peer="10.1.2.3")).verdict is Verdict.ALLOW
    await setup.set_key(allowed_addresses=None, allowed_models=["acme/*"])
    assert "Allowed: [acme/*]" in ending(await setup.explain())
    await setup.set_key(allowed_models=None, scopes=["usage:read"])
    assert "It has usage:read" in ending(await setup.explain())


async def test_says_who_answers_what_is_not_decided(setup: ExplainerSetup) -> None:
    for path in ("/api/v1/credits", "/v1/models", "/api/v1/llm/models"):
        assert "The meter API answers there" in ending(await setup.explain(method="GET", path=path))
    for path in ("/v1/chat", "/api/v1/llm/chat"):
        assert "meter API" not in ending(await setup.explain(path=path))


async def test_looks_at_limits_without_counting(setup: ExplainerSetup) -> None:
    await setup.set_key(requests_per_minute=1)
    setup.rules.rules = (
        LimitRule("seen", AppliesTo.EVERYONE, None, CountedPer.RULE, None, None, 1, True),
    )
    await setup.snapshot.refresh()
    for _ in range(3):
        found = await setup.explain()
    assert found.verdict is Verdict.ALLOW
    assert "rule:seen would refuse, were it enforced" in found.phases[6].says
    await setup.decider.decide(setup.request(), SystemClock().monotonic_s() + 5)
    found = await setup.explain()
    assert outcomes(found) == "oooooor--"
    assert "requests 0 of 1 left" in ending(found)
    assert int(dict(found.answer.headers)["retry-after"]) in (60, 61)
    explainer = Explainer(
        setup.books.pool, PEPPER, setup.jwts, setup.snapshot, AwayNow(), SystemClock(), TERMS
    )
    found = await explainer.explain(setup.request())
    assert found.verdict is Verdict.ALLOW
    assert "Redis cannot be asked" in found.phases[6].says


async def test_an_outage_is_explained_as_well(setup: ExplainerSetup) -> None:
    found = await setup.explain(extensions={"scope": "infrence"})
    assert outcomes(found) == "u--------"
    assert "unknown value" in ending(found)
    assert (found.answer.status, found.answer.code) == (503, "unavailable")
    setup.keys.key = None
    await setup.snapshot.refresh()
    found = await setup.explain()
    assert outcomes(found) == "ooooou---"
    assert found.answer.code == "provider_unavailable"


async def test_names_the_provider_that_a_route_leads_to(setup: ExplainerSetup) -> None:
    pool = setup.books.pool
    await pool.execute(
        "INSERT INTO providers (id, dialect, base_url) VALUES ('near', 'openai', 'http://near/v1')"
    )
    await PostgresCatalogue(pool).save("near", [offered(upstream_name="gpt-test")])
    route = Route("gpt", MODEL, (RouteProvider("near"),))
    await RouteStore(pool).put(SYSTEM, route)
    await setup.snapshot.refresh()
    found = await setup.explain()
    assert outcomes(found) == "ooooooooo"
    assert found.phases[5].says.startswith("It goes to near as 'gpt-test' with our key. ")
    refused = await setup.explainer.explain(setup.request(members={**CHAT, "plugins": []}))
    assert outcomes(refused) == "ooooor---"
    assert "'plugins' works with OpenRouter only" in ending(refused)
    setup.keys.refusal = KeyRefusal(401, "the key is unknown")
    await setup.snapshot.refresh()
    (warning,) = (await setup.explain()).warnings
    assert warning.startswith("near refuses our key")
    setup.keys.others = {"near": None}
    await setup.snapshot.refresh()
    assert "no usable key is set for near" in ending(await setup.explain())
