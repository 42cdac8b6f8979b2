"""The meter API in this process, on a real Postgres, asked over ASGI."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from meter.api.app import create_app
from meter.api.services import ApiDependencies, ReadinessProbe
from meter.clock import Clock, SystemClock
from meter.exports.sinks import Sinks, make_sinks
from meter.exports.webhooks.webhooks import Webhooks, make_webhooks
from meter.identity.issuer_store import PostgresIssuers
from meter.identity.operator_store import OperatorStore
from meter.identity.signing_key_store import PublishedKeys, SigningKeys
from meter.jwts.fetching import IssuerDocuments
from meter.jwts.passes import OwnIssuer
from meter.jwts.verifying import JwtVerifier
from meter.network import read_networks
from meter.payments.mode import StripeMode
from meter.payments.payments import Payments, make_payments
from meter.postgres.pool import PostgresPool
from meter.providers.base_urls import BaseUrls
from meter.providers.key_store import PostgresProviderKeys
from meter.providers.providers import Providers
from meter.reconciliation.reconciler import Reconciler
from meter.reconciliation.reconciliation_store import ReconciliationStore
from meter.sealing import MasterKey, SecretText
from meter.services import Issuing, Services
from tests.books import PEPPER
from tests.fakes import NoProviderTotals

OPERATOR_TOKEN = "operator-token-of-the-tests-0123456789abcdef"
ADMIN = "/api/v1/admin"
OWN_ISSUER = OwnIssuer("http://meter.test", "tollkeeper")
ADDRESS = "http://meter.test"
NO_PROVIDER = "http://127.0.0.1:9/api/v1"


@dataclass
class MeterApi:
    """A client of the API; `operator` presents the operator token, `anybody` nothing."""

    operator: httpx2.AsyncClient
    anybody: httpx2.AsyncClient
    pool: PostgresPool
    keys: PostgresProviderKeys
    app: FastAPI
    registry: CollectorRegistry
    sinks: Sinks
    webhooks: Webhooks
    payments: Payments | None = None

    @property
    def selling(self) -> Payments:
        """The parts that sell credit, where there are any."""
        assert self.payments is not None
        return self.payments

    def at(self, address: str) -> httpx2.AsyncClient:
        """A client that connects from there."""
        transport = httpx2.ASGITransport(app=self.app, client=(address, 4711))
        return httpx2.AsyncClient(transport=transport, base_url=ADDRESS)

    async def user(self, user_id: str, credit: str | None = None) -> str:
        """Make a user with some credit; returns the id."""
        body = {"id": user_id, "email": f"{user_id}@example.com"}
        answer = await self.operator.post(f"{ADMIN}/users", json=body)
        assert answer.status_code == 201, answer.text
        if credit is not None:
            assert (await self.credit(user_id, credit, "first")).status_code == 201
        return user_id

    async def key(self, user_id: str, **terms: Any) -> dict[str, Any]:
        """Make an API key; returns the answer with the secret."""
        body = {"name": "test", **terms}
        answer = await self.operator.post(f"{ADMIN}/users/{user_id}/api-keys", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def credit(
        self, user_id: str, amount: str, idempotency_key: str, reason: str = "test"
    ) -> httpx2.Response:
        """Post credit."""
        return await self.operator.post(
            f"{ADMIN}/users/{user_id}/credits",
            json={"amount": amount, "reason": reason},
            headers={"Idempotency-Key": idempotency_key},
        )

    async def credits(self, user_id: str) -> dict[str, str]:
        """Return the balance of a user."""
        answer = await self.operator.get(f"{ADMIN}/users/{user_id}/credits")
        assert answer.status_code == 200, answer.text
        funds: dict[str, str] = answer.json()
        return funds

    async def as_key(
        self, key: str, path: str, method: str = "GET", body: object = None, **params: Any
    ) -> httpx2.Response:
        """Ask with an API key."""
        headers = {"Authorization": f"Bearer {key}"}
        return await self.anybody.request(method, path, headers=headers, params=params, json=body)


@asynccontextmanager
async def meter_api(
    pool: PostgresPool,
    clock: Clock | None = None,
    readiness: dict[str, ReadinessProbe] | None = None,
    trusted_proxies: str = "",
    documents: IssuerDocuments | None = None,
    sells: StripeMode | None = None,
    provider_url: str = NO_PROVIDER,
    webhook_tls: ssl.SSLContext | None = None,
    webhook_networks: str = "",
) -> AsyncIterator[MeterApi]:
    """The API of a meter whose operator is admitted; issuers publish `documents`.

    With `sells` it sells credit. Events are stored, and followed when a test says so.
    Nobody answers at the address of the provider unless one is given.
    """
    master_key, clock = MasterKey(b"m" * 32), clock or SystemClock()
    keys = PostgresProviderKeys(pool, master_key)
    documents = documents or IssuerDocuments()
    signing = SigningKeys(pool, master_key, clock, "EdDSA")
    published = PublishedKeys(pool, clock)
    verifier = JwtVerifier(PostgresIssuers(pool), documents, clock, OWN_ISSUER, published)
    registry = CollectorRegistry()
    reconciler = Reconciler(ReconciliationStore(pool), NoProviderTotals(), registry)
    issuing = Issuing(OWN_ISSUER, signing, documents)
    payments = None if sells is None else make_payments(sells, pool, clock, registry)
    sinks = make_sinks(pool, master_key, registry)
    providers = Providers(
        pool, keys, registry, provider_url, BaseUrls.from_setting("127.0.0.0/8"), 60.0
    )
    webhooks = make_webhooks(
        pool, master_key, clock, registry, read_networks(webhook_networks), webhook_tls
    )
    outside = ApiDependencies(
        services=Services(
            pool,
            PEPPER,
            clock,
            issuing,
            verifier,
            keys,
            providers,
            reconciler,
        ),
        registry=registry,
        provider_base_url=provider_url,
        readiness=readiness or {},
        trusted_proxies=read_networks(trusted_proxies),
        payments=payments,
        sinks=sinks,
        webhooks=webhooks.store,
    )
    app = create_app(outside)
    transport = httpx2.ASGITransport(app=app)
    presented = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    async with (
        httpx2.AsyncClient(transport=transport, base_url=ADDRESS, headers=presented) as operator,
        httpx2.AsyncClient(transport=transport, base_url=ADDRESS) as anybody,
    ):
        yield MeterApi(operator, anybody, pool, keys, app, registry, sinks, webhooks, payments)
    await sinks.sender.close()
    await webhooks.sender.close()
    if payments is not None:
        await payments.gateway.close()
    await verifier.close()


async def admit_operator(pool: PostgresPool) -> None:
    """Store the digest of the operator token, as a starting meter does."""
    await OperatorStore(pool).admit("operator", SecretText(OPERATOR_TOKEN))


async def every_page(client: httpx2.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    rows: list[dict[str, Any]] = []
    while True:
        answer = await client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        rows += answer.json()["data"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return rows
        params["cursor"] = cursor
