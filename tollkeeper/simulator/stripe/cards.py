"""Stripe's published test cards: numbers, tokens, and the behaviour of each."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Decline:
    """The reason why a bank refuses a card."""

    code: str
    decline_code: str | None
    message: str
    advice_code: str = "try_again_later"


@dataclass(frozen=True, slots=True)
class TestCard:
    """A test card.

    `decline` refuses charges, and `is_declined_on_setup` attaching too. `authentication` says
    when the holder must confirm: `always`, `unless_set_up` (off-session payments pass once the
    card was set up), `on_session` (off-session payments pass). `dispute` is the reason of the
    dispute that follows each charge, `refund` the fate of its refunds. An `is_bank` is no card but
    a bank account: its charges end later.
    """

    # No class of tests, in spite of its name.
    __test__ = False

    number: str
    tokens: tuple[str, ...]
    title: str
    brand: str = "visa"
    funding: str = "credit"
    decline: Decline | None = None
    is_declined_on_setup: bool = True
    authentication: str | None = None
    dispute: str | None = None
    is_inquiry: bool = False
    refund: str = "succeeds"
    skips_pending: bool = False
    is_bank: bool = False

    @property
    def last4(self) -> str:
        return self.number[-4:]


GENERIC: Final = Decline("card_declined", "generic_decline", "Your card was declined.")
INSUFFICIENT: Final = Decline(
    "card_declined", "insufficient_funds", "Your card has insufficient funds."
)
NO_FUNDS: Final = Decline(
    "insufficient_funds",
    None,
    "The customer's account has insufficient funds to cover this payment.",
)
LOST: Final = Decline("card_declined", "lost_card", "Your card was declined.", "do_not_try_again")
STOLEN: Final = Decline(
    "card_declined", "stolen_card", "Your card was declined.", "do_not_try_again"
)
VELOCITY: Final = Decline(
    "card_declined",
    "card_velocity_exceeded",
    "Your card was declined for making repeated attempts too frequently or exceeding its amount "
    "limit.",
)
EXPIRED: Final = Decline("expired_card", None, "Your card has expired.", "confirm_card_data")
BAD_CVC: Final = Decline(
    "incorrect_cvc", None, "Your card's security code is incorrect.", "confirm_card_data"
)
PROCESSING: Final = Decline(
    "processing_error",
    None,
    "An error occurred while processing your card. Try again in a little bit.",
)
AUTHENTICATION_REQUIRED: Final = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
AUTHENTICATION_FAILED: Final = Decline(
    "payment_intent_authentication_failure",
    None,
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data "
    "or a new PaymentMethod to attempt to fulfill this PaymentIntent again.",
)

TEST_CARDS: Final = (
    TestCard("4242424242424242", ("visa",), "Succeeds"),
    TestCard("4000056655665556", ("visa_debit",), "Succeeds, debit", funding="debit"),
    TestCard("5555555555554444", ("mastercard",), "Succeeds, Mastercard", brand="mastercard"),
    TestCard("378282246310005", ("amex",), "Succeeds, American Express", brand="amex"),
    TestCard(
        "4000000000000002",
        ("chargeDeclined", "visa_chargeDeclined"),
        "Declined",
        decline=GENERIC,
    ),
    TestCard(
        "4000000000009995",
        ("chargeDeclinedInsufficientFunds", "visa_chargeDeclinedInsufficientFunds"),
        "Declined: insufficient funds",
        decline=INSUFFICIENT,
    ),
    TestCard(
        "4000000000009987",
        ("visa_chargeDeclinedLostCard",),
        "Declined: lost card",
        decline=LOST,
    ),
    TestCard(
        "4000000000009979",
        ("visa_chargeDeclinedStolenCard",),
        "Declined: stolen card",
        decline=STOLEN,
    ),
    TestCard(
        "4000000000000069",
        ("chargeDeclinedExpiredCard", "visa_chargeDeclinedExpiredCard"),
        "Declined: expired card",
        decline=EXPIRED,
    ),
    TestCard(
        "4000000000000127",
        ("chargeDeclinedIncorrectCvc", "visa_chargeDeclinedIncorrectCvc"),
        "Declined: security code",
        decline=BAD_CVC,
    ),
    TestCard(
        "4000000000000119",
        ("chargeDeclinedProcessingError", "visa_chargeDeclinedProcessingError"),
        "Declined: processing error",
        decline=PROCESSING,
    ),
    TestCard(
        "4000000000006975",
        ("visa_chargeDeclinedVelocityLimitExceeded",),
        "Declined: too many charges",
        decline=VELOCITY,
    ),
    TestCard(
        "4000000000000341",
        ("chargeCustomerFail",),
        "Can be saved; every charge is declined",
        decline=GENERIC,
        is_declined_on_setup=False,
    ),
    TestCard(
        "4000002500003155",
        ("authenticationRequiredOnSetup",),
        "Authentication unless set up",
        authentication="unless_set_up",
    ),
    TestCard(
        "4000002760003184",
        ("authenticationRequired",),
        "Authentication always",
        authentication="always",
    ),
    TestCard(
        "4000003800000446",
        ("authenticationRequiredSetupForOffSession",),
        "Authentication on session only",
        authentication="on_session",
    ),
    TestCard(
        "4000008260003178",
        ("authenticationRequiredChargeDeclinedInsufficientFunds",),
        "Authentication, then insufficient funds",
        authentication="always",
        decline=INSUFFICIENT,
        is_declined_on_setup=False,
    ),
    TestCard(
        "4000000000003220",
        ("threeDSecure2Required",),
        "3D Secure required",
        authentication="on_session",
    ),
    TestCard(
        "4000000000000259",
        ("createDispute",),
        "Succeeds, then disputed as fraudulent",
        dispute="fraudulent",
    ),
    TestCard(
        "4000000000002685",
        ("createDisputeProductNotReceived",),
        "Succeeds, then disputed as not received",
        dispute="product_not_received",
    ),
    TestCard(
        "4000000000001976",
        ("createDisputeInquiry",),
        "Succeeds, then an inquiry",
        dispute="fraudulent",
        is_inquiry=True,
    ),
    TestCard(
        "4000000000007726",
        ("pendingRefund",),
        "Succeeds; refunds succeed later",
        refund="pending",
    ),
    TestCard(
        "4000000000005126",
        ("refundFail",),
        "Succeeds; refunds fail later",
        refund="fails",
    ),
    TestCard(
        "4000000000000077",
        ("bypassPending",),
        "Succeeds, available at once",
        skips_pending=True,
    ),
)

TEST_ACCOUNTS: Final = (
    TestCard("000123456789", ("success",), "Bank account, succeeds later", is_bank=True),
    TestCard(
        "000222222227",
        ("insufficientFunds",),
        "Bank account, fails later",
        decline=NO_FUNDS,
        is_declined_on_setup=False,
        is_bank=True,
    ),
)

BY_NUMBER: Final = {card.number: card for card in (*TEST_CARDS, *TEST_ACCOUNTS)}
BY_TOKEN: Final = {
    f"pm_usBankAccount_{token}": account for account in TEST_ACCOUNTS for token in account.tokens
} | {
    f"{prefix}_{token}": card
    for card in TEST_CARDS
    for token in card.tokens
    for prefix in ("pm_card", "tok")
}
