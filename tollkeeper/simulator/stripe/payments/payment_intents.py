"""PaymentIntents: the state machine of one payment, over any number of attempts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tollkeeper.simulator.stripe.cards import (
    AUTHENTICATION_FAILED,
    AUTHENTICATION_REQUIRED,
    Decline,
)
from tollkeeper.simulator.stripe.payments.charges import Charges
from tollkeeper.simulator.stripe.payments.disputes import Disputes
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.parameters import Parameters
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, bad_parameter, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

AMOUNT_MIN = 50
CANCELLATION_REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")


@dataclass(frozen=True, slots=True)
class Purpose:
    """The reason of a payment, where a Checkout session or an invoice made it.

    `tax` is the part of the amount that is tax, in cents. `on_paid` tells of the success, also of
    one that comes later; `on_processing` that a bank takes its time, and `on_failed` that it then
    refused.
    """

    tax: int = 0
    invoice: str | None = None
    on_paid: Callable[[Json], None] = lambda intent: None
    on_processing: Callable[[Json], None] = lambda intent: None
    on_failed: Callable[[Json], None] = lambda intent: None


class PaymentIntents:
    """Makes and confirms PaymentIntents."""

    def __init__(
        self, world: World, methods: PaymentMethods, charges: Charges, disputes: Disputes
    ) -> None:
        self._world = world
        self._methods = methods
        self._charges = charges
        self._disputes = disputes
        self._all = world.store.collection("payment_intent", "customer")
        self._purposes: dict[str, Purpose] = {}

    def operations(self) -> list[Operation]:
        one = "/v1/payment_intents/{intent}"
        return [
            Operation("POST", "/v1/payment_intents", self.create),
            Operation("GET", "/v1/payment_intents", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("POST", one, self.update),
            Operation("POST", f"{one}/confirm", self.confirm),
            Operation("POST", f"{one}/cancel", self.cancel),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        amount, currency = given.amount("amount"), given.currency()
        if amount < AMOUNT_MIN:
            raise bad_parameter("Amount must be at least $0.50 usd", "amount", "amount_too_small")
        customer = given.text("customer")
        if customer:
            self._world.store.get("customer", customer, "customer")
        capture = given.choice("capture_method", ("automatic", "automatic_async"))
        types = given.texts("payment_method_types")
        automatic = self._automatic(given, types)
        texts = self._texts(given)
        metadata = given.metadata()
        is_confirmed = given.flag("confirm")
        confirmation = self._confirmation(given, is_confirmed)
        given.finish()
        if is_confirmed:
            self._require_return_url(automatic, confirmation)
        method = self._usable_method(confirmation.method, customer)
        intent = self.make(
            amount,
            currency,
            customer,
            {
                "automatic_payment_methods": automatic,
                "capture_method": capture or "automatic_async",
                "metadata": metadata,
                "payment_method": method["id"] if method else None,
                "payment_method_types": types or ["card"],
                "status": "requires_confirmation" if method else "requires_payment_method",
                **texts,
            },
        )
        if is_confirmed:
            return self._confirm(intent, method, confirmation)
        return intent

    def make(
        self,
        amount: int,
        currency: str,
        customer: str | None,
        members: Json,
        purpose: Purpose | None = None,
    ) -> Json:
        """Make an intent and tell of it; `members` replace what is usual."""
        identifier = new_id("pi")
        intent: Json = {
            "id": identifier,
            "object": "payment_intent",
            "amount": amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{identifier}_secret_{new_id('', 24)[1:]}",
            "confirmation_method": "automatic",
            "created": self._world.wall.now(),
            "currency": currency,
            "customer": customer,
            "customer_account": None,
            "description": None,
            "excluded_payment_method_types": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "managed_payments": None,
            "metadata": {},
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {
                "card": {
                    "installments": None,
                    "mandate_options": None,
                    "network": None,
                    "request_three_d_secure": "automatic",
                }
            },
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
            **members,
        }
        self._world.store.add(intent)
        if purpose:
            self._purposes[identifier] = purpose
        self._world.events.emit("payment_intent.created", intent)
        return intent

    def retrieve(self, call: Call) -> Json:
        call.parameters.text("client_secret")
        call.parameters.finish()
        return self._world.store.get("payment_intent", call.path["intent"])

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, keep = given.text("customer"), by_created(given)
        return self._all.page(given, call.url, keep, customer=customer)

    def update(self, call: Call) -> Json:
        intent = self._world.store.get("payment_intent", call.path["intent"])
        given = call.parameters
        changed: Json = {"metadata": given.metadata(intent["metadata"])}
        if given.has("amount"):
            changed["amount"] = given.amount("amount", AMOUNT_MIN)
        if given.has("customer"):
            changed["customer"] = given.required("customer")
            self._world.store.get("customer", changed["customer"], "customer")
        changed |= {name: value for name, value in self._texts(given).items() if given.has(name)}
        wanted = given.text("payment_method")
        given.finish()
        if intent["status"] not in OPEN and set(changed) - {"metadata", "description"}:
            raise self._unexpected(intent, "update")
        if wanted:
            method = self._usable_method(wanted, changed.get("customer", intent["customer"]))
            assert method is not None
            changed |= {"payment_method": method["id"], "status": "requires_confirmation"}
        intent.update(changed)
        self._all.reindex(intent)
        return intent

    def confirm(self, call: Call) -> Json:
        intent = self._world.store.get("payment_intent", call.path["intent"])
        given = call.parameters
        confirmation = self._confirmation(given, True)
        usage = given.choice("setup_future_usage", ("off_session", "on_session"))
        given.finish()
        if intent["status"] not in OPEN:
            raise self._unexpected(intent, "confirm")
        self._require_return_url(intent["automatic_payment_methods"], confirmation)
        wanted = confirmation.method or intent["payment_method"]
        method = self._usable_method(wanted, intent["customer"])
        if usage:
            intent["setup_future_usage"] = usage
        return self._confirm(intent, method, confirmation)

    def cancel(self, call: Call) -> Json:
        intent = self._world.store.get("payment_intent", call.path["intent"])
        given = call.parameters
        reason = given.choice("cancellation_reason", CANCELLATION_REASONS)
        given.finish()
        if intent["status"] not in OPEN:
            raise self._unexpected(intent, "cancel")
        self.close(intent, reason)
        return intent

    def close(self, intent: Json, reason: str | None) -> None:
        """Cancel an open intent."""
        intent.update(
            status="canceled",
            cancellation_reason=reason,
            canceled_at=self._world.wall.now(),
            next_action=None,
        )
        self._world.events.emit("payment_intent.canceled", intent)

    def change_amount(self, intent: Json, amount: int, tax: int) -> None:
        """Let an open intent ask for another amount, with another part of tax."""
        intent["amount"] = amount
        purpose = self._purposes.get(intent["id"], Purpose())
        self._purposes[intent["id"]] = replace(purpose, tax=tax)

    def attempt(
        self,
        intent: Json,
        method: Json,
        *,
        is_off_session: bool,
        fails_on_action: bool = False,
        return_url: str | None = None,
    ) -> Decline | None:
        """Try to take the money; return why the bank refused, None if it did not.

        The intent then is `succeeded`, or `requires_action` until `authenticate`.
        """
        intent["payment_method"] = method["id"]
        if self._needs_authentication(method, is_off_session):
            if is_off_session or fails_on_action:
                return self._fail(intent, method, AUTHENTICATION_REQUIRED)
            url = f"{self._world.base_url}/authenticate/{intent['id']}"
            intent.update(
                status="requires_action",
                next_action={
                    "type": "redirect_to_url",
                    "redirect_to_url": {"return_url": return_url, "url": url},
                },
            )
            self._world.events.emit("payment_intent.requires_action", intent)
            return None
        return self._take(intent, method)

    def authenticate(self, intent: Json, is_confirmed: bool) -> Decline | None:
        """End `requires_action`: the card's holder confirmed the payment, or did not."""
        if intent["status"] != "requires_action":
            raise self._unexpected(intent, "authenticate")
        intent["next_action"] = None
        method = self._world.store.get("payment_method", intent["payment_method"])
        if is_confirmed:
            return self._take(intent, method)
        return self._fail(intent, method, AUTHENTICATION_FAILED)

    def _take(self, intent: Json, method: Json) -> Decline | None:
        card = self._methods.card_of(method)
        if card.is_bank:
            self._process(intent, method)
            return None
        if card.decline:
            return self._fail(intent, method, card.decline)
        self._succeed(intent, method, self._charges.begin(intent, method))
        return None

    def _process(self, intent: Json, method: Json) -> None:
        """Begin a debit of which the bank tells the end later."""
        purpose = self._purposes.get(intent["id"], Purpose())
        charge = self._charges.begin(intent, method)
        intent.update(status="processing", latest_charge=charge["id"])
        self._world.events.emit("payment_intent.processing", intent)
        purpose.on_processing(intent)

        def end() -> None:
            decline = self._methods.card_of(method).decline
            if decline:
                self._fail(intent, method, decline, charge)
                purpose.on_failed(intent)
            else:
                self._succeed(intent, method, charge)

        self._world.wall.at(self._world.wall.now() + self._world.settings.settle_seconds, end)

    def _succeed(self, intent: Json, method: Json, charge: Json) -> None:
        card = self._methods.card_of(method)
        purpose = self._purposes.get(intent["id"], Purpose())
        self._charges.succeed(
            charge,
            method,
            tax=purpose.tax,
            invoice=purpose.invoice,
            is_async=intent["capture_method"] == "automatic_async",
        )
        customer = intent["customer"] and self._world.store.find(intent["customer"])
        if intent["setup_future_usage"] and customer:
            self._methods.attach(method["id"], customer)
            if intent["setup_future_usage"] == "off_session":
                self._methods.mark_set_up(method)
        self._methods.mark_used(method)
        intent.update(
            status="succeeded",
            amount_received=intent["amount"],
            latest_charge=charge["id"],
            last_payment_error=None,
        )
        self._world.events.emit("payment_intent.succeeded", intent)
        purpose.on_paid(intent)
        if card.dispute:
            self._disputes.open_soon(charge, card.dispute, is_inquiry=card.is_inquiry)

    def _fail(
        self, intent: Json, method: Json, decline: Decline, charge: Json | None = None
    ) -> Decline:
        charge = charge or self._charges.begin(intent, method)
        self._charges.fail(charge, decline)
        error: Json = {
            "advice_code": decline.advice_code,
            "charge": charge["id"],
            "code": decline.code,
            "doc_url": f"https://stripe.com/docs/error-codes/{decline.code.replace('_', '-')}",
            "message": decline.message,
            "payment_method": dict(method),
            "type": "card_error",
        }
        if decline.decline_code:
            error["decline_code"] = decline.decline_code
        intent.update(
            status="requires_payment_method",
            last_payment_error=error,
            latest_charge=charge["id"],
            next_action=None,
            payment_method=None,
        )
        self._world.events.emit("payment_intent.payment_failed", intent)
        return decline

    def _needs_authentication(self, method: Json, is_off_session: bool) -> bool:
        match self._methods.card_of(method).authentication:
            case "always":
                return True
            case "on_session":
                return not is_off_session
            case "unless_set_up":
                return not (is_off_session and self._methods.is_set_up(method))
        return False

    def _confirm(self, intent: Json, method: Json | None, confirmation: "_Confirmation") -> Json:
        if method is None:
            raise invalid(
                "You cannot confirm this PaymentIntent because it's missing a payment method. "
                "Update the PaymentIntent with a payment method and then confirm it again.",
                code="payment_intent_unexpected_state",
            )
        decline = self.attempt(
            intent,
            method,
            is_off_session=confirmation.is_off_session,
            fails_on_action=confirmation.fails_on_action,
            return_url=confirmation.return_url,
        )
        if decline:
            raise Problem(
                402,
                "card_error",
                decline.message,
                code=decline.code,
                decline_code=decline.decline_code,
                advice_code=decline.advice_code,
                charge=intent["latest_charge"],
                payment_intent=intent,
                payment_method=method,
            )
        return intent

    def _confirmation(self, given: Parameters, is_confirmed: bool) -> "_Confirmation":
        off_session = given.choice("off_session", ("true", "false", "one_off", "recurring"))
        fails_on_action = given.flag("error_on_requires_action")
        return_url = given.text("return_url")
        uses_sdk = given.flag("use_stripe_sdk")
        for name in ("off_session", "error_on_requires_action", "return_url"):
            if given.has(name) and not is_confirmed:
                raise bad_parameter(
                    f"The parameter `{name}` cannot be passed when creating a PaymentIntent "
                    "unless `confirm` is set to true.",
                    name,
                )
        return _Confirmation(
            given.text("payment_method"),
            off_session not in (None, "false"),
            fails_on_action,
            return_url,
            uses_sdk,
        )

    def _require_return_url(self, automatic: Json | None, confirmation: "_Confirmation") -> None:
        may_redirect = automatic is not None and automatic["allow_redirects"] == "always"
        if may_redirect and not confirmation.return_url and not confirmation.uses_sdk:
            raise bad_parameter(
                "This PaymentIntent is configured to accept payment methods enabled in your "
                "Dashboard. Because some of these payment methods might redirect your customer "
                "off of your page, you must provide a `return_url`. If you don't want to accept "
                "redirect-based payment methods, set `automatic_payment_methods[enabled]` to "
                "`true` and `automatic_payment_methods[allow_redirects]` to `never`.",
                "return_url",
            )

    def _automatic(self, given: Parameters, types: list[str]) -> Json | None:
        automatic = given.child("automatic_payment_methods")
        is_enabled = automatic.flag("enabled", default=not types)
        redirects = automatic.choice("allow_redirects", ("always", "never"), "always")
        if not is_enabled:
            return None
        if types:
            raise bad_parameter(
                "You may only specify one of these parameters: automatic_payment_methods, "
                "payment_method_types.",
                "automatic_payment_methods",
            )
        return {"allow_redirects": redirects, "enabled": True}

    def _texts(self, given: Parameters) -> Json:
        names = ("description", "receipt_email", "statement_descriptor")
        usage = given.choice("setup_future_usage", ("off_session", "on_session"))
        suffix = given.text("statement_descriptor_suffix")
        texts = {name: given.text(name) for name in names}
        return {**texts, "setup_future_usage": usage, "statement_descriptor_suffix": suffix}

    def _usable_method(self, identifier: str | None, customer: str | None) -> Json | None:
        if identifier is None:
            return None
        method = self._methods.get(identifier)
        self._methods.require_usable(method, customer)
        return method

    def _unexpected(self, intent: Json, verb: str) -> Problem:
        return Problem(
            400,
            "invalid_request_error",
            f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
            payment_intent=intent,
        )


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """The wishes of a request that confirms an intent."""

    method: str | None
    is_off_session: bool
    fails_on_action: bool
    return_url: str | None
    uses_sdk: bool
