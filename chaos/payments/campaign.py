"""Buys, renews, refunds and disputes under faults, then compares credit with the other books."""

import asyncio
import contextlib
import itertools
import math
import random
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from chaos.payments.meter import SWEEP
from chaos.payments.shop import OPERATOR_TOKEN, POLL_S, STRIPE_KEY, Shop, open_shop
from meter.ledger.verification_store import VerificationStore
from meter.payments.event_store import KNOWN_EVENTS
from meter.payments.event_worker import LEASE
from meter.postgres.pool import open_pool
from tollkeeper.simulator.stripe.books import Movement
from tollkeeper.simulator.stripe.faults import Fault, Trouble

BUYERS: Final = 20
# Accounts with a subscription, whose customers live on test clocks; by a card that is disputed at
# each renewal, one whose refunds fail, and one that just pays.
SUBSCRIBER_CARDS: Final = (
    *("4242424242424242",) * 6,
    *("4000000000000259",) * 2,
    "4000000000005126",
    "4000000000007726",
)
SUBSCRIBER: Final = "subscriber-"
SUBSCRIBED_PLAN: Final = "starter"
# A period of this plan costs 19 USD and includes 20 USD.
SUBSCRIBED_CENTS: Final = 1_900
INCLUDED_CENTS: Final = 2_000
RENEWAL_DAYS: Final = 31
RENEWALS_OF_100: Final = 30
AT_ONCE: Final = 16
PROGRESS_EVERY_S: Final = 15.0
# For so long the end may stand still.
QUIET_MOST_S: Final = 300.0
SETTLE_SECONDS: Final = 60
# A start costs as much as some hundred payments, so that long campaigns kill less often.
KILL_EVERY_S: Final = (2.0, 6.0)
KILL_EVERY_S_IN_LONG_ONES: Final = (10.0, 30.0)
LONG_PAYMENTS: Final = 5_000
# Of the others, which the meter only counts, a webhook of a shop is not told either.
TOLD: Final = sorted({*KNOWN_EVENTS, "charge.succeeded"})
TRIES: Final = 60
PICOS_PER_CENT: Final = 10**10
VISA: Final = "4242424242424242"
# Stripe's test cards by how often of a hundred they pay.
CARDS: Final = (
    (VISA, 72),
    ("4000000000000002", 6),  # declined
    ("4000000000000259", 10),  # disputed
    ("4000000000005126", 6),  # its refunds fail
    ("4000000000007726", 6),  # its refunds succeed later
)
# Percent of deliveries and of requests that each trouble strikes.
TROUBLES: Final = {
    Trouble.LOSE: 20,
    Trouble.DUPLICATE: 20,
    Trouble.REORDER: 15,
    Trouble.ERROR_AFTER_COMMIT: 2,
    Trouble.CUT_AFTER_COMMIT: 2,
    Trouble.CONFLICT: 2,
    Trouble.RATE_LIMIT: 2,
    Trouble.ERROR: 1,
}
# Each payment has two events and, for every second buyer, a return page: all of its events must be
# lost, or losing all of them is rare.
LOST_WITHOUT_SWEEP: Final = 100
# What each movement in the stand-in's books does to credit.
SIGNS: Final = {
    "paid": 1,
    "tax": -1,
    "refunded": -1,
    "refund_failed": 1,
    "dispute_withdrawn": -1,
    "dispute_reinstated": 1,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign: so many payments are tried, or what can be begun in `minutes`.

    `without` switches one rule off.
    """

    payments: int
    seed: int
    folder: Path
    without: str | None = None
    minutes: float | None = None


@dataclass
class Outcome:
    """The result of a campaign, in cents; a difference is credit less the stand-in's books."""

    paid: int = 0
    periods: int = 0
    credited: int = 0
    lost: int = 0
    doubled: int = 0
    refunds: int = 0
    disputes: int = 0
    tried: int = 0
    buying_s: float = 0.0
    settling_s: float = 0.0
    kills: int = 0
    missed_by_webhook: int = 0
    differences: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Return whether credit equals the stand-in's books to the cent, each payment once."""
        return not (self.lost or self.doubled or self.differences or self.broken) and self.paid > 0

    def to_text(self) -> str:
        """Return the result as lines."""
        lines = [
            f"tried {self.tried} in {self.buying_s:.0f} s, quiet {self.settling_s:.0f} s later",
            f"payments {self.paid} ({self.periods} of subscriptions), credited {self.credited}, "
            f"lost {self.lost}, doubled {self.doubled}",
            f"refunds {self.refunds}, disputes {self.disputes}, kills {self.kills}, "
            f"events found by the sweep {self.missed_by_webhook}",
        ]
        lines += [f"{user}: {cents} cents too much" for user, cents in self.differences.items()]
        lines += [f"ledger: {failure}" for failure in self.broken]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An account with a subscription; its clock is advanced by one at a time."""

    customer_id: str
    clock_id: str
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Buyers:
    """Customers who buy, come back or not, and want their money back now and then."""

    def __init__(self, shop: Shop, chance: random.Random) -> None:
        self._shop = shop
        self._chance = chance
        self._subscribers: list[Subscriber] = []

    async def open_accounts(self) -> None:
        for number in range(BUYERS):
            body = {"id": f"buyer-{number}", "email": f"buyer-{number}@example.com"}
            reply = await self._ask("POST", "/api/v1/admin/users", body)
            assert reply is not None

    async def subscribe(self) -> None:
        """Have some accounts subscribe, before there are any faults."""
        synced = await self._ask("POST", "/api/v1/admin/plans/sync", {})
        assert synced is not None
        for number, card in enumerate(SUBSCRIBER_CARDS):
            user = f"{SUBSCRIBER}{number}"
            body = {"id": user, "email": f"{user}@example.com"}
            assert await self._ask("POST", "/api/v1/admin/users", body) is not None
            frozen = {"frozen_time": str(int(time.time()))}
            clock = await self._at_stripe("/v1/test_helpers/test_clocks", frozen)
            form = {"email": body["email"], "test_clock": clock["id"]}
            customer = await self._at_stripe("/v1/customers", form)
            await self._shop.save_customer(user, customer["id"])
            path = f"/api/v1/admin/users/{user}/subscription"
            opened = await self._ask("POST", path, {"plan": SUBSCRIBED_PLAN})
            assert opened is not None
            fields = {"card_number": card, "name": "Ada"}
            async with self._shop.session.post(
                opened["url"], data=fields, allow_redirects=False
            ) as page:
                assert page.status in (200, 303), await page.text()
            self._subscribers.append(Subscriber(customer["id"], clock["id"]))

    async def act(self, number: int) -> None:
        """Buy once, or have a subscription renew."""
        if self._chance.randrange(100) < RENEWALS_OF_100:
            await self.renew(self._chance.choice(self._subscribers))
        else:
            await self.buy(number)

    async def renew(self, one: Subscriber) -> None:
        """Move the clock of a subscriber on by a period; perhaps take the money back."""
        chance = random.Random(f"{self._chance.random()}")
        world = self._shop.stripe.world
        async with one.turn:
            clock = world.store.get("test_helpers.test_clock", one.clock_id)
            until = clock["frozen_time"] + RENEWAL_DAYS * 86_400
            path = f"/v1/test_helpers/test_clocks/{one.clock_id}/advance"
            await self._at_stripe(path, {"frozen_time": str(until)})
            # A request that was refused by a fault has not begun it.
            while clock["status"] != "ready":  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        found = await self._at_stripe(
            f"/v1/payment_intents?customer={one.customer_id}&limit=1", None
        )
        for paid in found.get("data", ()):
            if chance.random() < 0.2:
                await self._refund(paid["id"], paid["amount"], through_meter=chance.random() < 0.5)
            elif chance.random() < 0.5:
                evidence = chance.choice(["winning_evidence", "losing_evidence"])
                await self._answer_dispute(paid["id"], evidence)

    async def buy(self, number: int) -> None:
        """Buy once: open a purchase, pay, come back, and perhaps take the money back."""
        chance = random.Random(f"{self._chance.random()}")
        user = f"buyer-{number % BUYERS}"
        amount = f"{chance.randint(500, 50_000) / 100:.2f}"
        path = f"/api/v1/admin/users/{user}/checkout"
        opened = await self._ask("POST", path, {"amount": amount})
        if opened is None:
            return
        card = chance.choices([one for one, _ in CARDS], [share for _, share in CARDS])[0]
        session_id = str(opened["url"]).rsplit("/", 1)[1]
        fields = {"card_number": card, "name": "Ada"}
        async with self._shop.session.post(
            opened["url"], data=fields, allow_redirects=False
        ) as page:
            await page.read()
        if chance.random() < 0.5:
            with contextlib.suppress(aiohttp.ClientError):
                url = f"{chance.choice(self._shop.meters).url}/api/v1/billing/return"
                async with self._shop.session.get(url, params={"session_id": session_id}) as back:
                    await back.read()
        session = self._shop.stripe.world.store.get("checkout.session", session_id)
        payment_id = session["payment_intent"]
        if session["payment_status"] != "paid":
            return
        cents = session["amount_total"]
        if chance.random() < 0.2:
            await asyncio.sleep(chance.uniform(0, 1))
            part = chance.choice([cents, cents // 2, cents // 3])
            await self._refund(payment_id, part, through_meter=chance.random() < 0.5)
        if card == "4000000000000259" and chance.random() < 0.7:
            evidence = chance.choice(["winning_evidence", "losing_evidence"])
            await self._answer_dispute(payment_id, evidence)

    async def _refund(self, payment_id: str, cents: int, *, through_meter: bool) -> None:
        if through_meter:
            path = f"/api/v1/admin/payments/{payment_id}/refunds"
            body = {"amount": f"{cents / 100:.2f}"}
            await self._ask("POST", path, body, {"Idempotency-Key": "once"}, tries=3)
            return
        await self._at_stripe("/v1/refunds", {"payment_intent": payment_id, "amount": str(cents)})

    async def _answer_dispute(self, payment_id: str, evidence: str) -> None:
        found = await self._at_stripe(f"/v1/disputes?payment_intent={payment_id}", None)
        for one in found.get("data", ()):
            text = {"evidence[uncategorized_text]": evidence, "submit": "true"}
            await self._at_stripe(f"/v1/disputes/{one['id']}", text)

    async def _at_stripe(self, path: str, form: dict[str, str] | None) -> dict[str, Any]:
        """Do something in Stripe's dashboard. Whether it worked is in the stand-in's books."""
        headers = {"Authorization": f"Bearer {STRIPE_KEY}"}
        method = "GET" if form is None else "POST"
        with contextlib.suppress(aiohttp.ClientError, ValueError):
            url = f"{self._shop.stripe.url}{path}"
            async with self._shop.session.request(method, url, data=form, headers=headers) as reply:
                found: dict[str, Any] = await reply.json()
                return found
        return {}

    async def _ask(
        self,
        method: str,
        path: str,
        body: object,
        headers: dict[str, str] | None = None,
        tries: int = TRIES,
    ) -> dict[str, Any] | None:
        """Ask any meter until one answers; None for a refusal, and where none ever answers."""
        presented = {"Authorization": f"Bearer {OPERATOR_TOKEN}", **(headers or {})}
        for _ in range(tries):
            url = self._chance.choice(self._shop.meters).url + path
            try:
                async with self._shop.session.request(
                    method, url, json=body, headers=presented
                ) as reply:
                    if reply.status < 300:
                        found: dict[str, Any] = await reply.json()
                        return found
                    if reply.status < 500 and reply.status != 401:
                        return None
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(POLL_S)
        return None


async def run_campaign(plan: Plan) -> Outcome:
    """Run one campaign, wait until all is quiet, and compare the books."""
    chance = random.Random(plan.seed)
    async with open_shop(plan.folder, plan.seed, plan.without) as shop:
        buyers = Buyers(shop, chance)
        await buyers.open_accounts()
        await buyers.subscribe()
        troubles = dict(TROUBLES)
        if plan.without == SWEEP:
            troubles[Trouble.LOSE] = LOST_WITHOUT_SWEEP
        for trouble, percent in troubles.items():
            shop.stripe.faults.add(Fault(trouble=trouble, percent=percent, times=None))
        for endpoint in shop.stripe.world.store.of("webhook_endpoint"):
            endpoint["enabled_events"] = TOLD
        every_s = KILL_EVERY_S if plan.payments < LONG_PAYMENTS else KILL_EVERY_S_IN_LONG_ONES
        beside = [
            asyncio.create_task(shop.kill_at_random(random.Random(chance.random()), every_s)),
            asyncio.create_task(_show_progress(shop)),
        ]
        began = time.monotonic()
        until = began + (math.inf if plan.minutes is None else 60 * plan.minutes)
        numbers = itertools.takewhile(
            lambda _: time.monotonic() < until, iter(range(plan.payments))
        )
        tried = 0

        async def buy() -> None:
            nonlocal tried
            # The buyers share one iterator, so that each takes the next purchase.
            for number in numbers:
                tried += 1
                await buyers.act(number)

        await asyncio.gather(*(buy() for _ in range(AT_ONCE)))
        buying_s = time.monotonic() - began
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        shop.stripe.faults.clear()
        # Refunds and disputes that are on their way end.
        shop.stripe.world.wall.skip(SETTLE_SECONDS)
        for one in shop.meters:
            assert one.child is not None
            if one.child.poll() is not None:
                one.start()
        for one in shop.meters:
            await one.wait_ready(shop.session)
        since, ended = datetime.now(UTC), time.monotonic()
        await shop.restart()
        await _wait_quiet(shop, since, plan.without)
        settling_s = time.monotonic() - ended
        return replace(await _compare(shop), tried=tried, buying_s=buying_s, settling_s=settling_s)


async def _show_progress(shop: Shop) -> None:
    """Print how far the campaign is, until cancelled."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        sys.stdout.write(
            f"{time.monotonic() - began:.0f} s: {shop.stripe.books.count(Movement.PAID)} payments, "
            f"{shop.kills} kills, "
            f"{len(shop.stripe.deliveries)} webhooks on their way\n"
        )
        sys.stdout.flush()


async def _wait_quiet(shop: Shop, since: datetime, without: str | None) -> None:
    """Wait until the sweep has come to the end, and no event waits, for as long as these move."""
    owner = await asyncpg.connect(shop.owner_dsn)
    seen: tuple[object, ...] = ()
    moved_at = shown_at = time.monotonic()
    # Nothing is away any more, so what was put off may come now, and so may what a meter that is
    # gone had taken. Later only what is put off for long: others are being followed.
    longest = timedelta(0)
    try:
        while True:
            await owner.execute(
                "UPDATE stripe_events SET next_attempt_at = clock_timestamp()"
                " WHERE state = 'waiting' AND attempts < 50"
                " AND next_attempt_at > clock_timestamp() + $1::interval",
                longest,
            )
            longest = LEASE
            waiting = await owner.fetchval(
                "SELECT count(*) FROM stripe_events WHERE state = 'waiting'"
            )
            listed_up_to = await owner.fetchval("SELECT max(listed_up_to) FROM stripe_sweeps")
            is_swept = without == SWEEP or (listed_up_to is not None and listed_up_to > since)
            if not waiting and is_swept and not len(shop.stripe.deliveries):
                return
            now = time.monotonic()
            if seen != (seen := (waiting, listed_up_to, len(shop.stripe.deliveries))):
                moved_at = now
            elif now - moved_at > QUIET_MOST_S:
                raise TimeoutError(f"{waiting} events wait, and the sweep is at {listed_up_to}")
            if now - shown_at > PROGRESS_EVERY_S:
                shown_at = now
                sys.stdout.write(f"{waiting} events wait, and the sweep is at {listed_up_to}\n")
                sys.stdout.flush()
            await asyncio.sleep(5 * POLL_S)
    finally:
        await owner.close()


async def _compare(shop: Shop) -> Outcome:
    outcome = Outcome(kills=shop.kills)
    owner = await asyncpg.connect(shop.owner_dsn)
    customers = await owner.fetch("SELECT account_id, customer_id FROM stripe_customers")
    payments = await owner.fetch(
        "SELECT id, account_id, count(*) AS times, sum(credited_picos)::bigint AS picos"
        " FROM payments GROUP BY id, account_id"
    )
    balances = await owner.fetch("SELECT id, balance_picos FROM accounts")
    outcome.missed_by_webhook = await owner.fetchval(
        "SELECT count(*) FROM stripe_events WHERE source = 'sweep'"
    )
    unclear = await owner.fetch(
        "SELECT type, object_id, state, error FROM stripe_events"
        " WHERE state IN ('parked', 'foreign')"
    )
    await owner.close()
    books = shop.stripe.books
    rows = books.rows(0, 10_000_000)
    theirs = {row["payment_intent"]: row for row in rows if row["movement"] == "paid"}
    ours = {row["id"]: row for row in payments}
    outcome.paid, outcome.credited = len(theirs), len(ours)
    outcome.periods = sum(row["invoice"] is not None for row in theirs.values())
    outcome.lost = len(theirs.keys() - ours.keys())
    outcome.doubled = sum(row["times"] > 1 for row in payments) + len(ours.keys() - theirs.keys())
    outcome.refunds = sum(row["movement"] == "refunded" for row in rows)
    outcome.disputes = sum(row["movement"] == "dispute_withdrawn" for row in rows)
    # Each account buys through one customer; an answer that was lost may have made others.
    accounts = {row["customer_id"]: row["account_id"] for row in customers}
    expected: dict[str, int] = dict.fromkeys(accounts.values(), 0)
    for customer, sums in books.sums().items():
        if customer in accounts:
            cents = sum(sign * sums[name] for name, sign in SIGNS.items())
            if accounts[customer].startswith(SUBSCRIBER):
                # Each is a whole period, or all of it that is taken back or given back.
                cents = cents * INCLUDED_CENTS // SUBSCRIBED_CENTS
            expected[accounts[customer]] += cents
    for row in balances:
        # Nothing but payments and reversals moves these balances; parts round by pico-dollars.
        cents = round(row["balance_picos"] / PICOS_PER_CENT)
        difference = cents - expected.get(row["id"], 0)
        if difference:
            outcome.differences[row["id"]] = difference
    pool = await open_pool(shop.service_dsn, 1)
    verified = await VerificationStore(pool).verify()
    await pool.close()
    outcome.broken = [failure.message for failure in verified.failures]
    # The invoice brings these payments; what is told of them before is not known to be ours.
    early = _objects_of_subscribers(shop, accounts)
    outcome.broken += [
        f"{row['type']} is {row['state']}: {row['error']}"
        for row in unclear
        if row["state"] == "parked" or row["object_id"] not in early
    ]
    return outcome


def _objects_of_subscribers(shop: Shop, accounts: dict[str, str]) -> set[str]:
    """Return the ids of payments of subscriptions, and of their charges, refunds and disputes."""
    store = shop.stripe.world.store
    intents = {
        one["id"]
        for one in store.of("payment_intent")
        if accounts.get(one["customer"] or "", "").startswith(SUBSCRIBER)
    }
    kinds = ("charge", "refund", "dispute")
    return intents | {
        one["id"] for kind in kinds for one in store.of(kind) if one["payment_intent"] in intents
    }
