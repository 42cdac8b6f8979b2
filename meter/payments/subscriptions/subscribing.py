"""Lets accounts subscribe to plans, change and cancel; and makes the prices of plans at Stripe."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from meter.audit.audit_store import AuditStore
from meter.audit.events import Actor, AuditEvent
from meter.errors import Conflict, NotFound
from meter.money import PICOS_PER_CENT, format_usd
from meter.payments.purchase import CURRENCY, Purchase, PurchaseKind
from meter.payments.purchase_store import PurchaseStore
from meter.payments.selling import OpenedPurchase, Selling
from meter.payments.stripe_facts import StripeRefused
from meter.payments.subscriptions.facts import PriceFacts, SubscriptionFacts
from meter.payments.subscriptions.following import SubscriptionFollower
from meter.payments.subscriptions.subscription_store import Subscription, SubscriptionStore
from meter.plans.plan import PlanPrice, PlanVersion, price_key
from meter.plans.plan_store import PlanStore

if TYPE_CHECKING:
    from meter.payments.subscriptions.stripe_subscriptions import StripeSubscriptions


@dataclass(frozen=True, slots=True)
class SyncedPlan:
    """A plan beside Stripe: its price there, and what differed before; nothing in step."""

    plan_id: str
    price_id: str | None
    differences: tuple[str, ...]


class Subscribing:
    """Sells plans. Raises StripeUnavailable, StripeRefused and StoreUnavailable."""

    def __init__(
        self,
        stripe: "StripeSubscriptions",
        store: SubscriptionStore,
        plans: PlanStore,
        purchases: PurchaseStore,
        selling: Selling,
        follower: SubscriptionFollower,
        audit: AuditStore,
        is_live: bool,
    ) -> None:
        self._stripe = stripe
        self._store = store
        self._plans = plans
        self._purchases = purchases
        self._selling = selling
        self._follower = follower
        self._audit = audit
        self._is_live = is_live

    async def open_checkout(self, account_id: str, plan_id: str, actor: Actor) -> OpenedPurchase:
        """Open the page on which a subscription begins. The first one of an account has the trial.

        Raises NotFound for a plan that is not sold, Conflict for an account that has one, and
        SellingNotOpen.
        """
        await self._selling.require_open()
        _, price, price_id = await self._find_sold(plan_id)
        if await self._store.find(account_id, self._is_live) is not None:
            raise Conflict("the account has a subscription: change its plan, or cancel it first")
        has_trial = not await self._store.has_subscribed(account_id)
        terms = await self._purchases.get_terms()
        await self._purchases.find_customer(account_id, self._is_live)
        purchase: Purchase = await self._purchases.open_purchase(
            uuid4(),
            account_id,
            PurchaseKind.SUBSCRIPTION,
            self._is_live,
            price.amount_picos,
            False,
            actor,
        )
        page = await self._selling.with_customer(
            account_id,
            lambda customer_id: self._stripe.create_checkout(
                purchase,
                customer_id,
                price_id,
                price.trial_days if has_trial else 0,
                terms,
                self._selling.return_url,
            ),
        )
        await self._purchases.set_session(purchase.id, page.session_id)
        return OpenedPurchase(purchase, page.url)

    async def get(self, account_id: str) -> Subscription:
        """Return the subscription of an account that has not ended. Raises NotFound."""
        found = await self._store.find(account_id, self._is_live)
        if found is None:
            raise NotFound("the account has no subscription")
        return found

    async def change_plan(self, account_id: str, plan_id: str, actor: Actor) -> Subscription:
        """Change the plan of a subscription.

        A dearer plan is charged at once, for the rest of the period less what is unused of the
        other, and its terms begin when that is paid. A cheaper one begins with the next period:
        else credit of the dearer plan could be spent, and its price taken back.
        """
        plan, price, price_id = await self._find_sold(plan_id)
        facts = await self._facts(account_id)
        if facts.price_id != price_id:
            present = await self._store.find_version(facts.price_id, self._is_live)
            is_dearer = (
                present is None
                or present.price is None
                or price.amount_picos > present.price.amount_picos
            )
            await self._stripe.change_price(facts, price_id, is_dearer)
            await self._note("subscription.changed", account_id, actor, {"plan": plan.id})
        await self._follower.follow_subscription(facts.id)
        return await self.get(account_id)

    async def set_cancels(self, account_id: str, is_wanted: bool, actor: Actor) -> Subscription:
        """Have the subscription of an account end with its period, or go on after all."""
        facts = await self._facts(account_id)
        await self._stripe.set_cancels(facts.id, is_wanted)
        action = "subscription.canceled" if is_wanted else "subscription.resumed"
        await self._note(action, account_id, actor, {"id": facts.id})
        await self._follower.follow_subscription(facts.id)
        return await self.get(account_id)

    async def set_paused(self, account_id: str, is_wanted: bool, actor: Actor) -> Subscription:
        """Have the subscription of an account charge nothing from its next period on, or go on.

        What is paid stays; with the end of its period the account has the plan of before.
        """
        facts = await self._facts(account_id)
        await self._stripe.set_paused(facts.id, is_wanted)
        action = "subscription.paused" if is_wanted else "subscription.unpaused"
        await self._note(action, account_id, actor, {"id": facts.id})
        await self._follower.follow_subscription(facts.id)
        return await self.get(account_id)

    async def sync(self, may_change: bool) -> list[SyncedPlan]:
        """Make product and price of every plan that is sold; say what differed before.

        Repeating changes nothing. Without `may_change`, it only says what differs.
        """
        return [
            await self._sync_plan(plan, plan.price, may_change)
            for plan in await self._plans.list_all()
            if plan.is_sold and plan.price is not None
        ]

    async def find_price_differences(self) -> list[str]:
        """Return what differs between the plans that are sold and Stripe, a sentence each."""
        return [
            f"plan {plan.plan_id}: {difference}"
            for plan in await self.sync(may_change=False)
            for difference in plan.differences
        ]

    async def _sync_plan(self, plan: PlanVersion, price: PlanPrice, may_change: bool) -> SyncedPlan:
        differences = []
        product = await self._stripe.ensure_product(plan.id, plan.name, may_change)
        if product is not None:
            differences.append(product)
        key = price_key(plan.id, price)
        found = await self._stripe.find_price(key)
        wrong = "the price is missing" if found is None else _difference(found, price)
        if wrong is not None:
            differences.append(wrong)
            if may_change:
                # A price never changes at Stripe: the key moves to the one that is right.
                found = await self._stripe.create_price(plan.id, price, key)
        elif found is not None and not found.is_active:
            differences.append("the price is not active")
            if may_change:
                await self._stripe.activate_price(found.id)
        if found is not None and (may_change or wrong is None):
            await self._store.save_price(found.id, plan.id, price, self._is_live)
        return SyncedPlan(plan.id, None if found is None else found.id, tuple(differences))

    async def _find_sold(self, plan_id: str) -> tuple[PlanVersion, PlanPrice, str]:
        """Return a plan that is sold, and its price here and at Stripe."""
        plan = await self._plans.get(plan_id)
        if not plan.is_sold or plan.price is None:
            raise NotFound(f"the plan '{plan_id}' is not sold")
        price_id = await self._store.find_price(plan.id, plan.price, self._is_live)
        if price_id is None:
            raise StripeRefused(
                f"the plan '{plan_id}' has no price at Stripe yet: an administrator has to run "
                "`tollkeeper plans sync`"
            )
        return plan, plan.price, price_id

    async def _facts(self, account_id: str) -> SubscriptionFacts:
        found = await self.get(account_id)
        facts = await self._stripe.find_subscription(found.id)
        if facts is None or facts.ended_at is not None:
            raise NotFound("the account has no subscription")
        return facts

    async def _note(
        self, action: str, account_id: str, actor: Actor, detail: dict[str, str]
    ) -> None:
        event = AuditEvent(action, f"user:{account_id}", account_id, detail)
        await self._audit.add(actor, event)


def _difference(found: PriceFacts, price: PlanPrice) -> str | None:
    """Return how a price at Stripe differs from a plan's; None where it is the same."""
    cents = price.amount_picos // PICOS_PER_CENT
    if (found.cents, found.currency, found.period) == (cents, CURRENCY, price.period.value):
        return None
    amount = "nothing fixed" if found.cents is None else format_usd(found.cents * PICOS_PER_CENT)
    return f"the price is {amount} {found.currency} a {found.period or 'period of its own'}"
