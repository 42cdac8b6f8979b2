"""The hosted pages: Checkout, authentication, receipts. Plain HTML without scripts."""

from collections.abc import Iterable
from html import escape
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from aiohttp import web

from tollkeeper.simulator.stripe.cards import BY_NUMBER, TEST_ACCOUNTS, TEST_CARDS, TestCard
from tollkeeper.simulator.stripe.payments.payment_intents import PaymentIntents
from tollkeeper.simulator.stripe.payments.setup_intents import SetupIntents
from tollkeeper.simulator.stripe.selling.checkout import Buyer, CheckoutSessions
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, invalid
from tollkeeper.simulator.stripe.world import World

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:2rem auto;padding:0 1rem}"
    "label{display:block;margin:1rem 0}input,select{display:block;width:100%;font:inherit;"
    "padding:.4rem;box-sizing:border-box}button{font:inherit;padding:.5rem 1rem}"
    "td:last-child{text-align:right}table{width:100%}.mode{background:#fd6;padding:.2rem .5rem}"
    ".error{color:#b00}"
)
SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-store",
}


def page(title: str, body: str, status: int = 200) -> web.Response:
    """Return a page; `body` is HTML."""
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{STYLE}</style><p class=mode>Stripe simulator: no money moves</p>"
        f"<h1>{escape(title)}</h1>{body}</html>"
    )
    return web.Response(status=status, text=text, content_type="text/html", headers=SECURITY)


def money(cents: int, currency: str) -> str:
    """Return an amount for people: `10.00 USD`."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d} {currency.upper()}"


def card_field(label: str = "Test card", *, has_banks: bool = False) -> str:
    """Return the field to choose a test card, or also a bank account."""
    options = "".join(
        f"<option value={card.number}>{card.number} {escape(card.title)}</option>"
        for card in (*TEST_CARDS, *(TEST_ACCOUNTS if has_banks else ()))
    )
    return f"<label>{label}<select name=card_number>{options}</select></label>"


def error_text(message: str | None) -> str:
    """Return a message that something failed, or nothing."""
    return f"<p class=error role=alert>{escape(message)}</p>" if message else ""


async def read_fields(request: web.Request) -> dict[str, str]:
    """Return the texts of a form."""
    form = await request.post()
    return {name: value.strip() for name, value in form.items() if isinstance(value, str)}


def card_of(fields: dict[str, str]) -> TestCard:
    """Return the chosen card; raises Problem for a number that is no test card's."""
    number = "".join(fields.get("card_number", "").split())
    card = BY_NUMBER.get(number)
    if card is None:
        raise invalid("Your card number is incorrect.", "card_number", "incorrect_number")
    return card


def with_query(url: str, added: Iterable[tuple[str, str]]) -> str:
    """Return a URL with more query parameters."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *added])
    return urlunsplit(parts._replace(query=query))


class CheckoutPages:
    """Handlers of the pages that a customer clicks through to pay."""

    def __init__(
        self,
        world: World,
        sessions: CheckoutSessions,
        intents: PaymentIntents,
        setups: SetupIntents,
    ) -> None:
        self._world = world
        self._sessions = sessions
        self._intents = intents
        self._setups = setups

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/c/pay/{session}", self.show),
            web.post("/c/pay/{session}", self.pay),
            web.get("/authenticate/{intent}", self.ask),
            web.post("/authenticate/{intent}", self.authenticate),
            web.get("/receipts/{charge}", self.receipt),
        ]

    async def show(self, request: web.Request) -> web.Response:
        self._world.wall.catch_up()
        try:
            session = self._sessions.get(request.match_info["session"])
        except Problem as problem:
            return page("Checkout", error_text(problem.message), 404)
        return self._state(session)

    async def pay(self, request: web.Request) -> web.Response:
        """Pay as the form says. A refusal shows the form again, with the reason."""
        fields = await read_fields(request)
        self._world.wall.catch_up()
        try:
            session = self._sessions.get(request.match_info["session"])
        except Problem as problem:
            return page("Checkout", error_text(problem.message), 404)
        if session["status"] != "open":
            return self._state(session)
        try:
            card = card_of(fields)
            if fields.get("promotion_code"):
                self._sessions.apply_code(session, fields["promotion_code"])
            buyer = Buyer(fields.get("email") or None, fields.get("name") or None)
            decline = self._sessions.pay(session, card, buyer)
        except Problem as problem:
            return self._form(session, problem.message)
        if decline:
            return self._form(session, decline.message)
        return self._state(session)

    async def ask(self, request: web.Request) -> web.Response:
        """Ask the card's holder to confirm a payment, as their bank would."""
        try:
            intent = self._intent(request)
        except Problem as problem:
            return page("Authentication", error_text(problem.message), 404)
        if intent["status"] != "requires_action":
            return page("Authentication", "<p>Nothing is to be confirmed.</p>")
        question = "save the card"
        if intent["object"] == "payment_intent":
            question = f"pay {money(intent['amount'], intent['currency'])}"
        return page(
            "Confirm the payment",
            f"<p>Your bank asks: {question}?</p><form method=post>"
            "<button name=action value=complete>Complete</button> "
            "<button name=action value=fail>Fail</button></form>",
        )

    async def authenticate(self, request: web.Request) -> web.Response:
        fields = await read_fields(request)
        try:
            intent = self._intent(request)
            back = (intent["next_action"] or {}).get("redirect_to_url", {}).get("return_url")
            is_confirmed = fields.get("action") == "complete"
            if intent["object"] == "setup_intent":
                self._setups.authenticate(intent, is_confirmed)
            else:
                self._intents.authenticate(intent, is_confirmed)
        except Problem as problem:
            return page("Authentication", error_text(problem.message), problem.status)
        if not back:
            return page("Authentication", f"<p>The payment is {escape(intent['status'])}.</p>")
        status = "succeeded" if intent["status"] == "succeeded" else "failed"
        added = [(intent["object"], intent["id"]), ("redirect_status", status)]
        raise web.HTTPSeeOther(with_query(back, added))

    async def receipt(self, request: web.Request) -> web.Response:
        try:
            charge = self._world.store.get("charge", request.match_info["charge"])
        except Problem as problem:
            return page("Receipt", error_text(problem.message), 404)
        rows = [
            ("Paid", money(charge["amount"], charge["currency"])),
            ("Refunded", money(charge["amount_refunded"], charge["currency"])),
            ("Charge", charge["id"]),
        ]
        return page("Receipt", _table(rows))

    def _intent(self, request: web.Request) -> Json:
        identifier = request.match_info["intent"]
        kind = "setup_intent" if identifier.startswith("seti_") else "payment_intent"
        return self._world.store.get(kind, identifier)

    def _state(self, session: Json) -> web.Response:
        """Show what is next in a session: the form, the bank's question, or the way back."""
        if session["status"] == "complete":
            url = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
            raise web.HTTPSeeOther(url)
        if session["status"] == "expired":
            return page("Checkout", "<p>This session has expired. Go back and start again.</p>")
        intent = self._sessions.intent_of(session)
        if intent and intent["status"] == "requires_action":
            raise web.HTTPSeeOther(f"/authenticate/{intent['id']}")
        error = intent and intent["last_payment_error"]
        return self._form(session, error["message"] if error else None)

    def _form(self, session: Json, message: str | None) -> web.Response:
        currency = session["currency"]
        rows = [
            (f"{title} x {quantity}", money(amount, currency))
            for title, quantity, amount in self._sessions.titles(session)
        ]
        details = session["total_details"]
        rows += [
            (title, money(amount, currency))
            for title, amount in (
                ("Discount", -details["amount_discount"]),
                ("Tax", details["amount_tax"]),
            )
            if amount
        ]
        total = money(session["amount_total"], currency)
        rows.append(("Total", total))
        email = "<label>Email<input name=email type=email required></label>"
        code = "<label>Promotion code<input name=promotion_code></label>"
        cancel = f"<p><a href='{escape(session['cancel_url'] or '')}'>Cancel</a></p>"
        return page(
            "Checkout",
            _table(rows)
            + error_text(message)
            + "<form method=post>"
            + ("" if session["customer"] or session["customer_email"] else email)
            + "<label>Name<input name=name></label>"
            + card_field(has_banks=self._sessions.takes_banks(session))
            + (code if session["allow_promotion_codes"] else "")
            + f"<button>Pay {total}</button></form>"
            + (cancel if session["cancel_url"] else ""),
        )


def _table(rows: list[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><td>{escape(name)}<td>{escape(text)}" for name, text in rows)
    return f"<table>{lines}</table>"
