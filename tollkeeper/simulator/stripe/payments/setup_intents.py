"""SetupIntents: a card is saved for later payments, without a payment now."""

from typing import Final

from tollkeeper.simulator.stripe.cards import AUTHENTICATION_FAILED, Decline
from tollkeeper.simulator.stripe.payments.payment_methods import PaymentMethods
from tollkeeper.simulator.stripe.store import by_created, new_id
from tollkeeper.simulator.stripe.wire.problem import Json, Problem, invalid
from tollkeeper.simulator.stripe.world import Call, Operation, World

REASONS: Final = ("abandoned", "duplicate", "requested_by_customer")
OPEN: Final = ("requires_payment_method", "requires_confirmation", "requires_action")


class SetupIntents:
    """Makes and confirms SetupIntents."""

    def __init__(self, world: World, methods: PaymentMethods) -> None:
        self._world = world
        self._methods = methods
        self._all = world.store.collection("setup_intent", "customer", "payment_method")

    def operations(self) -> list[Operation]:
        one = "/v1/setup_intents/{intent}"
        return [
            Operation("POST", "/v1/setup_intents", self.create),
            Operation("GET", "/v1/setup_intents", self.browse),
            Operation("GET", one, self.retrieve),
            Operation("POST", f"{one}/confirm", self.confirm),
            Operation("POST", f"{one}/cancel", self.cancel),
        ]

    def create(self, call: Call) -> Json:
        given = call.parameters
        customer = given.text("customer")
        if customer:
            self._world.store.get("customer", customer, "customer")
        usage = given.choice("usage", ("off_session", "on_session"), "off_session")
        wanted, is_confirmed = given.text("payment_method"), given.flag("confirm")
        types = given.texts("payment_method_types")
        automatic = given.child("automatic_payment_methods")
        automatic.flag("enabled")
        redirects = automatic.choice("allow_redirects", ("always", "never"), "always")
        description, metadata = given.text("description"), given.metadata()
        return_url = given.text("return_url")
        given.finish()
        method = self._methods.get(wanted) if wanted else None
        identifier = new_id("seti")
        intent: Json = {
            "id": identifier,
            "object": "setup_intent",
            "application": None,
            "automatic_payment_methods": None
            if types
            else {"allow_redirects": redirects, "enabled": True},
            "cancellation_reason": None,
            "client_secret": f"{identifier}_secret_{new_id('', 24)[1:]}",
            "created": self._world.wall.now(),
            "customer": customer,
            "customer_account": None,
            "description": description,
            "excluded_payment_method_types": None,
            "flow_directions": None,
            "last_setup_error": None,
            "latest_attempt": None,
            "livemode": False,
            "managed_payments": None,
            "mandate": None,
            "metadata": metadata,
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": method["id"] if method else None,
            "payment_method_configuration_details": None,
            "payment_method_options": {
                "card": {
                    "mandate_options": None,
                    "network": None,
                    "request_three_d_secure": "automatic",
                }
            },
            "payment_method_types": types or ["card"],
            "single_use_mandate": None,
            "status": "requires_confirmation" if method else "requires_payment_method",
            "usage": usage,
        }
        self._world.store.add(intent)
        self._world.events.emit("setup_intent.created", intent)
        return self._confirm(intent, method, return_url) if is_confirmed else intent

    def retrieve(self, call: Call) -> Json:
        call.parameters.finish()
        return self._world.store.get("setup_intent", call.path["intent"])

    def browse(self, call: Call) -> Json:
        given = call.parameters
        customer, method = given.text("customer"), given.text("payment_method")
        keep = by_created(given)
        return self._all.page(given, call.url, keep, customer=customer, payment_method=method)

    def confirm(self, call: Call) -> Json:
        intent = self._world.store.get("setup_intent", call.path["intent"])
        given = call.parameters
        wanted = given.text("payment_method", intent["payment_method"])
        return_url = given.text("return_url")
        given.finish()
        if intent["status"] not in OPEN:
            raise self._unexpected(intent, "confirm")
        return self._confirm(intent, self._methods.get(wanted) if wanted else None, return_url)

    def cancel(self, call: Call) -> Json:
        intent = self._world.store.get("setup_intent", call.path["intent"])
        reason = call.parameters.choice("cancellation_reason", REASONS)
        call.parameters.finish()
        if intent["status"] not in OPEN:
            raise self._unexpected(intent, "cancel")
        intent.update(status="canceled", cancellation_reason=reason, next_action=None)
        self._world.events.emit("setup_intent.canceled", intent)
        return intent

    def authenticate(self, intent: Json, is_confirmed: bool) -> None:
        """End `requires_action`: the card's holder agreed, or did not."""
        if intent["status"] != "requires_action":
            raise self._unexpected(intent, "authenticate")
        intent["next_action"] = None
        method = self._world.store.get("payment_method", intent["payment_method"])
        if is_confirmed:
            self._succeed(intent, method)
        else:
            self._fail(intent, AUTHENTICATION_FAILED)

    def _confirm(self, intent: Json, method: Json | None, return_url: str | None) -> Json:
        if method is None:
            raise invalid(
                "You cannot confirm this SetupIntent because it's missing a payment method.",
                code="setup_intent_unexpected_state",
            )
        self._methods.require_usable(method, intent["customer"])
        intent["payment_method"] = method["id"]
        self._all.reindex(intent)
        card = self._methods.card_of(method)
        if card.authentication in ("always", "unless_set_up"):
            url = f"{self._world.base_url}/authenticate/{intent['id']}"
            intent.update(
                status="requires_action",
                next_action={
                    "redirect_to_url": {"return_url": return_url, "url": url},
                    "type": "redirect_to_url",
                },
            )
            self._world.events.emit("setup_intent.requires_action", intent)
            return intent
        if card.decline and card.is_declined_on_setup:
            self._fail(intent, card.decline)
            raise Problem(
                402,
                "card_error",
                card.decline.message,
                code=card.decline.code,
                decline_code=card.decline.decline_code,
                setup_intent=intent,
                payment_method=method,
            )
        self._succeed(intent, method)
        return intent

    def _succeed(self, intent: Json, method: Json) -> None:
        if intent["customer"]:
            customer = self._world.store.get("customer", intent["customer"])
            self._methods.attach(method["id"], customer)
        if intent["usage"] == "off_session":
            self._methods.mark_set_up(method)
        intent.update(status="succeeded", last_setup_error=None)
        self._world.events.emit("setup_intent.succeeded", intent)

    def _fail(self, intent: Json, decline: Decline) -> None:
        error: Json = {
            "code": decline.code,
            "message": decline.message,
            "type": "card_error",
        }
        if decline.decline_code:
            error["decline_code"] = decline.decline_code
        intent.update(status="requires_payment_method", payment_method=None, last_setup_error=error)
        self._world.events.emit("setup_intent.setup_failed", intent)

    def _unexpected(self, intent: Json, verb: str) -> Problem:
        return Problem(
            400,
            "invalid_request_error",
            f"You cannot {verb} this SetupIntent because it has a status of {intent['status']}.",
            code="setup_intent_unexpected_state",
            setup_intent=intent,
        )
