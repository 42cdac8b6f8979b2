"""Going live: the checks that must pass before real money is taken."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from meter.audit.events import Actor
from meter.errors import NotFound
from meter.payments.event_store import KNOWN_EVENTS
from meter.payments.go_live_store import GoLiveStore, ProofState
from meter.payments.payment_store import PaymentStore
from meter.payments.purchase import PurchaseState
from meter.payments.stripe_facts import StripeRefused, StripeUnavailable

if TYPE_CHECKING:
    from meter.payments.selling import Selling
    from meter.payments.stripe_gateway import StripeGateway

WEBHOOK_PATH: Final = "/api/v1/webhooks/stripe"
PROBE_TIMEOUT_S: Final = 10.0
PROBE_MAX_BYTES: Final = 16_384
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_AGAIN: Final = "then run `tollkeeper billing go-live` again"

_log = structlog.get_logger(__name__)


class SellingNotOpen(NotFound):
    """Credit that is not sold yet, because the checks of going live have not passed."""


class CheckState(StrEnum):
    """The states of a check; one that waits needs an earlier check, or somebody who pays."""

    PASSED = "passed"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Check:
    """A check: what was looked at, why it is as it is, and what to do next (None: nothing)."""

    name: str
    state: CheckState
    why: str
    next_step: str | None = None


@dataclass(frozen=True, slots=True)
class GoLiveReport:
    """The checks, in their order. In test mode they are a rehearsal, and open nothing."""

    is_live: bool
    checks: list[Check]

    @property
    def has_passed(self) -> bool:
        """Return whether every check has passed."""
        return all(one.state is CheckState.PASSED for one in self.checks)


# What differs between our plans and Stripe's prices, a sentence each.
PriceCheck = Callable[[], Awaitable[list[str]]]


class GoLive:
    """Runs the checks, and opens the shop when all have passed. Raises StoreUnavailable."""

    def __init__(
        self,
        gateway: "StripeGateway",
        store: GoLiveStore,
        payments: PaymentStore,
        selling: "Selling",
        return_base: str,
        find_price_differences: PriceCheck,
    ) -> None:
        self._gateway = gateway
        self._store = store
        self._payments = payments
        self._selling = selling
        self._webhook_url = f"{return_base}{WEBHOOK_PATH}"
        self._find_price_differences = find_price_differences

    async def run(self, account_id: str | None, actor: Actor) -> GoLiveReport:
        """Run the checks. The account is the one that makes the purchase of 1 USD.

        A check whose forerunner has not passed waits. Raises NotFound for an unknown account.
        """
        checks = [
            self._check_mode(),
            self._check_address(),
            await self._check_endpoint(),
            await self._check_reachable(),
            await self._check_prices(),
        ]
        is_ready = all(one.state is CheckState.PASSED for one in checks)
        checks += await self._check_purchase(is_ready, account_id, actor)
        report = GoLiveReport(self._gateway.is_live, checks)
        if report.has_passed and report.is_live:
            await self._store.note_passed(actor)
            _log.warning("selling_went_live")
        return report

    def _check_mode(self) -> Check:
        name = "mode"
        if self._gateway.is_live:
            return Check(name, CheckState.PASSED, "a live key, and TOLLKEEPER_STRIPE_LIVE is true")
        return Check(
            name,
            CheckState.PASSED,
            "a test key: this is a rehearsal, and opens nothing; no money moves",
        )

    def _check_address(self) -> Check:
        name, parts = "public address", urlsplit(self._webhook_url)
        is_local = parts.hostname in _LOOPBACK
        if parts.scheme == "https" and not is_local:
            return Check(name, CheckState.PASSED, f"{parts.scheme}://{parts.netloc}")
        if is_local and not self._gateway.is_live:
            return Check(name, CheckState.PASSED, "this machine, which does for a rehearsal")
        return Check(
            name,
            CheckState.FAILED,
            f"customers and Stripe cannot reach {parts.scheme}://{parts.netloc} safely",
            f"set TOLLKEEPER_PUBLIC_URL to the https address of the gateway, restart, {_AGAIN}",
        )

    async def _check_endpoint(self) -> Check:
        name = "webhook endpoint at Stripe"
        try:
            endpoints = await self._gateway.list_webhook_endpoints()
        except (StripeUnavailable, StripeRefused) as error:
            return Check(
                name,
                CheckState.FAILED,
                f"{error}, or the key may not read webhook endpoints",
                f"give the restricted key the right to read Webhook Endpoints, {_AGAIN}",
            )
        found = [one for one in endpoints if one.url == self._webhook_url and one.is_enabled]
        if not found:
            return Check(
                name,
                CheckState.FAILED,
                f"Stripe has no enabled endpoint with the address {self._webhook_url}",
                f"add it in Stripe's Dashboard in this mode (Developers, Webhooks), {_AGAIN}",
            )
        told = {type_ for one in found for type_ in one.event_types}
        missing = sorted(set() if "*" in told else KNOWN_EVENTS - told)
        if missing:
            return Check(
                name,
                CheckState.FAILED,
                f"the endpoint is not told of {', '.join(missing)}",
                f"add these events to the endpoint, {_AGAIN}",
            )
        return Check(name, CheckState.PASSED, f"{self._webhook_url} is told of all events")

    async def _check_reachable(self) -> Check:
        name = "webhook reachable and signed"
        problem = await probe_webhook(self._webhook_url)
        if problem is None:
            return Check(
                name, CheckState.PASSED, "it answers, and refuses what Stripe has not signed"
            )
        return Check(
            name,
            CheckState.FAILED,
            f"{self._webhook_url} {problem}",
            f"let the gateway serve this path from outside, and a proxy change nothing, {_AGAIN}",
        )

    async def _check_prices(self) -> Check:
        name = "prices"
        try:
            differences = await self._find_price_differences()
        except (StripeUnavailable, StripeRefused) as error:
            return Check(name, CheckState.FAILED, str(error), f"try later: {_AGAIN}")
        if differences:
            return Check(
                name,
                CheckState.FAILED,
                "; ".join(differences),
                f"run `tollkeeper plans sync`, or retire plans that you do not sell, {_AGAIN}",
            )
        return Check(name, CheckState.PASSED, "what is sold has its price at Stripe")

    async def _check_purchase(
        self, is_ready: bool, account_id: str | None, actor: Actor
    ) -> list[Check]:
        paid, credited, refunded = "purchase of 1 USD", "credit by the webhook", "refund"
        if not is_ready:
            why = "waits for the checks above"
            return [Check(one, CheckState.WAITING, why) for one in (paid, credited, refunded)]
        proof = await self._store.find(self._gateway.is_live)
        later = [
            Check(one, CheckState.WAITING, "waits for the purchase") for one in (credited, refunded)
        ]
        if proof is None or proof.state is PurchaseState.ENDED:
            if account_id is None:
                step = "name the account that buys: `tollkeeper billing go-live --user USER`"
                return [Check(paid, CheckState.WAITING, "nobody has bought yet", step), *later]
            opened = await self._selling.open_proof(account_id, actor)
            await self._store.begin(self._gateway.is_live, opened.purchase.id)
            return [_to_pay(paid, opened.url), *later]
        if proof.payment_id is None:
            url = await self._page_of(proof)
            return [_to_pay(paid, url), *later]
        checks = [Check(paid, CheckState.PASSED, f"{proof.payment_id} of {proof.account_id}")]
        if not proof.events_by_webhook:
            why = (
                "the credit is there, but Stripe has not told us: the sweep or the return page did"
            )
            step = (
                f"look at the endpoint's deliveries at Stripe (400: wrong secret), resend, {_AGAIN}"
            )
            return [
                *checks,
                Check(credited, CheckState.FAILED, why, step),
                Check(refunded, CheckState.WAITING, "waits for the webhook"),
            ]
        checks.append(
            Check(credited, CheckState.PASSED, "Stripe's signed event came and was followed")
        )
        return [*checks, await self._refund(refunded, proof.payment_id, actor)]

    async def _page_of(self, proof: ProofState) -> str | None:
        """Return the page on which the purchase is paid, after looking whether it was."""
        if proof.session_id is None:
            return None
        return await self._gateway.find_page(proof.session_id)

    async def _refund(self, name: str, payment_id: str, actor: Actor) -> Check:
        paid = await self._payments.get(payment_id)
        if paid.reversed_picos < paid.credited_picos:
            try:
                paid = await self._selling.refund(payment_id, None, "go-live", actor)
            except (StripeUnavailable, StripeRefused) as error:
                return Check(name, CheckState.FAILED, str(error), f"refund it, {_AGAIN}")
        if paid.reversed_picos == paid.credited_picos:
            return Check(name, CheckState.PASSED, "the money and the credit went back")
        return Check(name, CheckState.FAILED, "a part is not refunded yet", f"wait, {_AGAIN}")


async def probe_webhook(url: str) -> str | None:
    """Return what is wrong with the address of a webhook; None where it refuses an unsigned body.

    Redirects are not followed: Stripe follows none.
    """
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json={}, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(PROBE_MAX_BYTES)
    except TimeoutError:
        return f"does not answer within {PROBE_TIMEOUT_S:.0f} s"
    except (aiohttp.ClientError, ValueError) as error:
        return f"is not reached ({type(error).__name__})"
    if answer.status == 400 and b"webhook_refused" in body:
        return None
    return f"answers {answer.status} to an unsigned event, and not 400 `webhook_refused`"


def _to_pay(name: str, url: str | None) -> Check:
    step = (
        f"wait a minute, {_AGAIN}"
        if url is None
        else f"pay 1.00 USD at {url} with a card of yours, {_AGAIN}"
    )
    return Check(name, CheckState.WAITING, "not paid yet; it is refunded at once", step)
