"""Random batches on a real Postgres get the verdicts that a plain model of the rules gives."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest

from meter.holds.hold import HoldAnswer, HoldPlaced, HoldRefused, HoldRequest, Refusal
from meter.holds.hold_store import BUSY, to_answer, to_arguments
from meter.money import MAX_PICOS
from meter.postgres.pool import PostgresPool, queries
from tests.books import LIFETIME, Books, Payer

ACCOUNTS = 5
BATCHES = 60
LARGEST = 16
PLACE_HOLDS = queries("meter.holds")["place_holds"]
HOLDS = "SELECT id, amount_picos, max_tokens, is_counted, pass_id FROM holds"
HELD = "SELECT id, held_picos FROM accounts"
BUDGETS = "SELECT subject, held_picos FROM spending WHERE held_picos <> 0"
ISSUER = "INSERT INTO issuers (id, url, terms) VALUES ('acme', 'https://acme.example', '{}')"
IDENTITY = (
    "INSERT INTO credentials (id, account_id, name, kind, issuer_id, subject)"
    " VALUES (translate($1, '018', 'abc'), $2, 'identity', 'identity', 'acme', $1)"
    " RETURNING id"
)
PASS = (
    "INSERT INTO passes (id, credential_id, account_id, scopes, budget_picos, created_by,"
    " expires_at) VALUES ($1, $2, $3, '{inference}', $4, 'test', now() + interval '1 hour')"
)


@dataclass
class Key:
    """A credential; `budget` is what its holds may come to in all, with those that ended."""

    id: str
    account_id: str
    is_identity: bool = False
    is_live: bool = True
    budget: int | None = None


@dataclass
class Pass:
    id: str
    key_id: str
    is_live: bool = True
    budget: int | None = None


@dataclass
class LivingHold:
    request: HoldRequest
    answer: HoldPlaced
    is_counted: bool


@dataclass
class Rules:
    """The rules of holds, written down as plainly as they are said."""

    balances: dict[str, int]
    keys: dict[str, Key]
    passes: dict[str, Pass] = field(default_factory=dict)
    suspended: set[str] = field(default_factory=set)
    is_issuer_enabled: bool = True
    holds: dict[UUID, LivingHold] = field(default_factory=dict)

    def judge(self, request: HoldRequest, locked: set[str]) -> HoldAnswer | str:
        """Return the answer to a request, and remember the hold."""
        account_id, asked = request.account_id, request.estimate
        if account_id in locked:
            return BUSY
        credit = self.balances.get(account_id, 0) - self._held(account_id)
        least = min(asked.fixed_picos + asked.per_token_picos * asked.min_tokens, MAX_PICOS)
        if not self._may_act(request):
            return HoldRefused(Refusal.CREDENTIAL_ENDED, least, credit)
        if account_id in self.suspended:
            return HoldRefused(Refusal.ACCOUNT_SUSPENDED, least, credit)
        if self._is_full(request):
            return HoldRefused(Refusal.TOO_MANY_CONCURRENT, least, credit)
        budgets = [left for left in self._budgets_left(request) if left is not None]
        usable = min([credit, *budgets])
        tokens = asked.max_tokens
        if asked.per_token_picos > 0:
            tokens = min(tokens, (usable - asked.fixed_picos) // asked.per_token_picos)
        # An own key without a fee uses no credit, so a debt is not in its way.
        uses_nothing = asked.markup_bps < 0 and not (asked.fixed_picos or asked.per_token_picos)
        is_short = usable < max(0, asked.fixed_picos) and not uses_nothing
        if is_short or tokens < asked.min_tokens:
            if usable < credit:
                return HoldRefused(Refusal.BUDGET_EXCEEDED, least, usable)
            return HoldRefused(Refusal.INSUFFICIENT, least, credit)
        amount = asked.fixed_picos + asked.per_token_picos * tokens
        answer = HoldPlaced(request.hold_id, amount, tokens)
        is_counted = request.account_concurrent is not None or request.key_concurrent is not None
        self.holds[request.hold_id] = LivingHold(request, answer, is_counted)
        return answer

    def _held(self, account_id: str) -> int:
        return sum(
            hold.answer.amount_picos
            for hold in self.holds.values()
            if hold.request.account_id == account_id
        )

    def _may_act(self, request: HoldRequest) -> bool:
        key = self.keys.get(request.credential_id)
        if key is None or key.account_id != request.account_id or not key.is_live:
            return False
        if key.is_identity and not self.is_issuer_enabled:
            return False
        if request.pass_id is None:
            return True
        shown = self.passes.get(request.pass_id)
        return shown is not None and shown.key_id == key.id and shown.is_live

    def _is_full(self, request: HoldRequest) -> bool:
        running = [
            hold.request.credential_id
            for hold in self.holds.values()
            if hold.is_counted and hold.request.account_id == request.account_id
        ]
        of_key = running.count(request.credential_id)
        return (
            request.account_concurrent is not None and len(running) >= request.account_concurrent
        ) or (request.key_concurrent is not None and of_key >= request.key_concurrent)

    def _budgets_left(self, request: HoldRequest) -> Iterable[int | None]:
        of_key = of_pass = 0
        for hold in self.holds.values():
            amount = hold.answer.amount_picos
            of_key += amount if hold.request.credential_id == request.credential_id else 0
            of_pass += amount if hold.request.pass_id == request.pass_id else 0
        budget = self.keys[request.credential_id].budget
        yield None if budget is None else budget - of_key
        if request.pass_id is not None:
            budget = self.passes[request.pass_id].budget
            yield None if budget is None else budget - of_pass


class RandomAccounts:
    """Accounts whose terms change at random, alike in the books and in the model."""

    def __init__(self, books: Books, chance: random.Random) -> None:
        self._books = books
        self._chance = chance
        self._unused = Payer("nobody", "z" * 16, "")
        self.rules = Rules({}, {})

    async def fill(self) -> None:
        pool = self._books.pool
        await pool.execute(ISSUER)
        for number in range(ACCOUNTS):
            account_id = f"account{number}"
            balance = self._chance.choice([60, 500, 2_000, 2_000])
            payer = await self._books.payer(account_id, balance)
            self.rules.balances[account_id] = balance
            identity = await pool.fetchval(IDENTITY, f"identity{number:08}", account_id)
            for key in (
                Key(payer.credential_id, account_id),
                Key(identity, account_id, is_identity=True),
            ):
                self.rules.keys[key.id] = key
                budget = self._chance.choice([None, 0, 40, 100])
                shown = Pass(f"pass-of-{key.id}", key.id, budget=budget)
                await pool.execute(PASS, shown.id, key.id, account_id, budget)
                self.rules.passes[shown.id] = shown

    async def change(self) -> None:
        """Change one thing, as an administrator would; holds end as well."""
        pool, chance, rules = self._books.pool, self._chance, self.rules
        key = chance.choice(list(rules.keys.values()))
        shown = chance.choice(list(rules.passes.values()))
        account_id = chance.choice(list(rules.balances))
        match chance.randrange(6):
            case 0:
                key.is_live = chance.random() < 0.8
                column = chance.choice(["revoked_at", "suspended_at", "expires_at"])
                await pool.execute(
                    "UPDATE credentials SET revoked_at = NULL, suspended_at = NULL,"
                    f" expires_at = NULL WHERE id = '{key.id}'"
                )
                if not key.is_live:
                    await pool.execute(
                        f"UPDATE credentials SET {column} = now() WHERE id = '{key.id}'"
                    )
            case 1:
                shown.is_live = chance.random() < 0.8
                await pool.execute(
                    "UPDATE passes SET revoked_at = CASE WHEN $2 THEN NULL ELSE now() END"
                    " WHERE id = $1",
                    shown.id,
                    shown.is_live,
                )
            case 2:
                rules.suspended = {account_id} if chance.random() < 0.3 else set()
                await pool.execute(
                    "UPDATE accounts SET is_suspended = id = ANY ($1::text[])",
                    list(rules.suspended),
                )
            case 3:
                rules.is_issuer_enabled = chance.random() < 0.8
                await pool.execute("UPDATE issuers SET is_enabled = $1", rules.is_issuer_enabled)
            case 4:
                key.budget = chance.choice([None, 0, 40, 200])
                await pool.execute(
                    "UPDATE credentials SET budget_total_picos = $2 WHERE id = $1",
                    key.id,
                    key.budget,
                )
                counting = "SELECT count_spending($1, 'total', $2)"
                await pool.execute(counting, key.id, key.budget is not None)
            case _:
                ending = chance.sample(list(rules.holds), len(rules.holds) // 2)
                assert await self._books.holds.release(ending) == len(ending)
                for hold_id in ending:
                    del rules.holds[hold_id]

    def request(self, may_be_limited: bool) -> HoldRequest:
        """Return a request of any key, for its own account or for another one's."""
        chance, rules = self._chance, self.rules
        key = chance.choice(list(rules.keys.values()))
        least, most = chance.choices([0, 1, 5], k=2)
        asked = self._books.request(
            replace(self._unused, account_id=key.account_id, credential_id=key.id),
            chance.choice([0, 1, 10, 50]),
            chance.choice([0, 1, 3]),
            least,
            most,
        )
        if chance.random() < 0.05:
            far_too_much = replace(asked.estimate, per_token_picos=MAX_PICOS)
            asked = replace(asked, estimate=far_too_much)
        if chance.random() < 0.05:
            asked = replace(asked, account_id=chance.choice(["account0", "nobody"]))
        if chance.random() < 0.4:
            shown = f"pass-of-{key.id}"
            foreign = chance.choice(list(rules.passes))
            asked = replace(asked, pass_id=chance.choice([shown, shown, foreign, "nowhere"]))
        if may_be_limited:
            asked = replace(
                asked,
                account_concurrent=chance.choice([None, None, None, 2, 6]),
                key_concurrent=chance.choice([None, None, None, 1, 4]),
            )
        # Right or wrong, the hint changes no verdict.
        return replace(asked, has_budget=chance.random() < 0.3)

    async def books_as_model(self) -> dict[str, Any]:
        """Return the state of the books, in the form of `model`."""
        pool = self._books.pool
        return {
            "holds": {row["id"]: tuple(row.values())[1:] for row in await pool.fetch(HOLDS)},
            "held": {row["id"]: row["held_picos"] for row in await pool.fetch(HELD)},
            "budgets": {row["subject"]: row["held_picos"] for row in await pool.fetch(BUDGETS)},
        }

    def model(self) -> dict[str, Any]:
        """Return the state that the rules demand."""
        rules = self.rules
        held: Counter[str] = Counter(dict.fromkeys(rules.balances, 0))
        budgets: Counter[str] = Counter()
        for hold in rules.holds.values():
            request, amount = hold.request, hold.answer.amount_picos
            held[request.account_id] += amount
            if rules.keys[request.credential_id].budget is not None:
                budgets[request.credential_id] += amount
            if request.pass_id and rules.passes[request.pass_id].budget is not None:
                budgets[request.pass_id] += amount
        return {
            "holds": {
                hold_id: (
                    hold.answer.amount_picos,
                    hold.answer.max_tokens,
                    hold.is_counted,
                    hold.request.pass_id,
                )
                for hold_id, hold in rules.holds.items()
            },
            "held": dict(held),
            "budgets": {subject: amount for subject, amount in budgets.items() if amount},
        }


async def place(pool: PostgresPool, batch: list[HoldRequest]) -> dict[UUID, HoldAnswer | str]:
    rows = await pool.fetch(PLACE_HOLDS, *to_arguments(batch, LIFETIME, may_wait=False))
    assert len(rows) == len(batch)
    return {row["hold_id"]: BUSY if row["verdict"] == BUSY else to_answer(row) for row in rows}


@pytest.mark.parametrize("seed", range(4))
async def test_random_batches_get_the_verdicts_of_the_rules(books: Books, seed: int) -> None:
    chance = random.Random(seed)
    accounts = RandomAccounts(books, chance)
    await accounts.fill()
    seen: Counter[str] = Counter()
    for _ in range(BATCHES):
        for _ in range(chance.randrange(4)):
            await accounts.change()
        may_be_limited = chance.random() < 0.4
        batch = [accounts.request(may_be_limited) for _ in range(chance.randint(1, LARGEST))]
        locked = {chance.choice(list(accounts.rules.balances))} if chance.random() < 0.2 else set()
        async with books.pool.acquire() as other, other.transaction():
            await other.execute(
                "SELECT FROM accounts WHERE id = ANY ($1::text[]) FOR NO KEY UPDATE", list(locked)
            )
            answers = await place(books.pool, batch)
        for request in sorted(batch, key=lambda one: one.account_id):
            expected = accounts.rules.judge(request, locked)
            assert answers[request.hold_id] == expected, request
            seen[expected.reason if isinstance(expected, HoldRefused) else str(expected)[:6]] += 1
        assert await accounts.books_as_model() == accounts.model()
    # The batches had requests of each kind.
    assert {*Refusal, "HoldPl", BUSY} <= seen.keys(), seen
