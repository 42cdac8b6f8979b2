"""Charges saved cards of accounts that run low and asked for it."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from meter.clock import Clock
from meter.errors import Outage
from meter.payments.auto_top_up_store import AutoTopUpStore
from meter.payments.fulfilment import Fulfilment
from meter.payments.metrics import PaymentMetrics
from meter.payments.purchase import Purchase, PurchaseState
from meter.payments.purchase_store import PurchaseStore
from meter.payments.selling import Selling
from meter.payments.stripe_facts import CardDeclined, PaymentFacts, PaymentState, StripeRefused
from meter.process.periodic import periodic

if TYPE_CHECKING:
    from meter.payments.stripe_gateway import StripeGateway

LOOK_EVERY_S: Final = 10.0
RETRY_S: Final = 5.0
MOST_RETRY_S: Final = 300.0
ACCOUNTS_AT_ONCE: Final = 50
# After so long, a charge whose answer was lost is looked for at Stripe.
LOST_ANSWER_AFTER: Final = timedelta(minutes=2)
# What Stripe has not made by then, it never will: the request was answered or cut long before.
NEVER_MADE_AFTER: Final = timedelta(hours=1)
# After a soft decline; one more pauses.
PAUSES: Final = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24))
# A bank that says so does not change its mind about this card.
HARD_DECLINES: Final = frozenset(
    {
        "authentication_required",
        "expired_card",
        "fraudulent",
        "incorrect_number",
        "invalid_account",
        "invalid_number",
        "lost_card",
        "merchant_blacklist",
        "pickup_card",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stolen_card",
        "stop_payment_order",
    }
)

_log = structlog.get_logger(__name__)


class AutoTopUps:
    """The work in the background that charges saved cards."""

    def __init__(
        self,
        gateway: "StripeGateway",
        store: AutoTopUpStore,
        purchases: PurchaseStore,
        fulfilment: Fulfilment,
        selling: Selling,
        clock: Clock,
        metrics: PaymentMetrics,
    ) -> None:
        self._gateway = gateway
        self._store = store
        self._purchases = purchases
        self._fulfilment = fulfilment
        self._selling = selling
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> NoReturn:
        """Look at intervals until cancelled, through outages of Postgres and of Stripe."""
        await periodic(
            "auto_top_up", self.look, LOOK_EVERY_S, RETRY_S, (Outage,), most_retry_s=MOST_RETRY_S
        )

    async def look(self) -> int:
        """Charge accounts that run low; return how many charges were begun. Raises Outage."""
        await self.find_lost(LOST_ANSWER_AFTER)
        if not await self._selling.is_open():
            return 0
        begun = 0
        for account_id in await self._store.list_due(ACCOUNTS_AT_ONCE):
            purchase = await self._store.open_purchase(account_id, self._gateway.is_live)
            if purchase is None:
                # The ceiling is reached, or another meter was first.
                continue
            begun += 1
            await self._charge(purchase)
        return begun

    async def find_lost(self, lost_after: timedelta) -> None:
        """Look for charges whose answer was lost, at Stripe. Nothing is charged again."""
        for purchase in await self._store.list_open(
            self._gateway.is_live, lost_after, ACCOUNTS_AT_ONCE
        ):
            _, customer_id = await self._purchases.find_customer(
                purchase.account_id, purchase.is_live
            )
            facts = None
            if customer_id is not None:
                facts = await self._gateway.find_payment_of(purchase, customer_id)
            if facts is not None:
                await self._settle(purchase, facts)
            elif self._clock.now() - purchase.created_at > NEVER_MADE_AFTER:
                await self._end(purchase, "Stripe has not made the charge")

    async def _charge(self, purchase: Purchase) -> None:
        """Charge the saved card. An outage leaves the purchase open: see `find_lost`."""
        _, customer_id = await self._purchases.find_customer(purchase.account_id, purchase.is_live)
        method_id = None
        if customer_id is not None:
            method_id = await self._gateway.find_saved_card(customer_id)
        if customer_id is None or method_id is None:
            await self._end(purchase, "no card is saved")
            await self._pause(purchase.account_id, "no card is saved: buy once and keep the card")
            return
        try:
            outcome = await self._gateway.charge_saved_card(purchase, customer_id, method_id)
        except StripeRefused as error:
            await self._end(purchase, str(error)[:500])
            await self._pause(purchase.account_id, str(error)[:500])
            return
        if isinstance(outcome, CardDeclined):
            await self._decline(purchase, outcome.code)
        else:
            await self._settle(purchase, outcome)

    async def _settle(self, purchase: Purchase, facts: PaymentFacts) -> None:
        """Do what follows from a charge that exists."""
        await self._fulfilment.follow_payment(facts.id)
        if facts.state is PaymentState.SUCCEEDED:
            self._metrics.auto_top_ups.labels("charged").inc()
            await self._store.clear_declines(purchase.account_id)
        elif facts.state is not PaymentState.PENDING:
            await self._decline(purchase, facts.failure or "declined")

    async def _decline(self, purchase: Purchase, code: str) -> None:
        await self._end(purchase, f"the card was declined ({code})")
        account_id = purchase.account_id
        if code in HARD_DECLINES:
            needs = "your bank asks for you" if code == "authentication_required" else "use another"
            await self._pause(account_id, f"the card was declined ({code}): {needs}")
            return
        declines = await self._store.declines(account_id)
        if declines >= len(PAUSES):
            await self._pause(account_id, f"the card was declined {declines + 1} times ({code})")
            return
        await self._store.put_off(account_id, PAUSES[declines])

    async def _end(self, purchase: Purchase, reason: str) -> None:
        await self._purchases.end(purchase.id, PurchaseState.ENDED, reason, has_failed=True)

    async def _pause(self, account_id: str, reason: str) -> None:
        if await self._store.pause(account_id, reason):
            self._metrics.auto_top_ups.labels("paused").inc()
            _log.warning("auto_top_up_paused", account_id=account_id, reason=reason)
