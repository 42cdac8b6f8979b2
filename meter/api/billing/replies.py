"""Forms of requests and replies about selling credit, and the dependency that sells."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import Field

from meter.api.fields import Body, Instant, Page, Payable, Reply, Usd
from meter.api.problems import ProblemError
from meter.api.services import FromOutside
from meter.money import format_usd
from meter.payments.payments import Payments
from meter.payments.purchase import SellingTerms


async def find_selling(outside: FromOutside) -> Payments:
    """Return the parts that sell credit. Raises ProblemError (404) while nothing is sold."""
    if outside.payments is None:
        raise ProblemError(
            404, "selling_off", "no credit is sold here: the administrator has set no Stripe key"
        )
    return outside.payments


FromPayments = Annotated[Payments, Depends(find_selling)]


class SellingReply(Reply):
    """The terms under which credit is sold now. `mode` is `test` while no real money moves.

    In `going_live` there is a live key, and nothing is sold until the checks have passed.
    """

    is_selling: bool
    mode: str | None = Field(
        examples=["test", "going_live", "live"], description="Null while no Stripe key is set"
    )
    least: Usd
    most: Usd
    is_taxed: bool = Field(description="Whether Stripe adds tax to the amount")
    takes_promotion_codes: bool
    makes_invoices: bool
    credit_days: int | None = Field(
        description="Days for which bought credit can be used; null: it never expires"
    )


class CheckoutBody(Body):
    """An amount of credit to buy on Stripe's page."""

    amount: Payable
    save_card: bool = Field(
        default=False, description="Keep the card for automatic top-ups; the customer is told"
    )


class CheckoutReply(Reply):
    """A purchase, and the page on which it is paid within two hours."""

    purchase_id: UUID
    amount: Usd
    url: str = Field(examples=["https://checkout.stripe.com/c/pay/cs_test_a1"])


class PurchaseReply(Reply):
    """A purchase. `ended` was not paid, and `reason` says why."""

    id: UUID
    user_id: str = Field(validation_alias="account_id")
    kind: str = Field(examples=["checkout", "auto_top_up"])
    amount: Usd = Field(validation_alias="amount_picos")
    state: str = Field(examples=["open", "paid", "ended"])
    reason: str | None
    created_at: Instant
    ended_at: datetime | None


class PurchasePageReply(Page):
    """Purchases, newest first."""

    data: list[PurchaseReply]


class PaymentReply(Reply):
    """Money that arrived through Stripe, and the credit that it became."""

    id: str = Field(examples=["pi_3Q0"])
    user_id: str = Field(validation_alias="account_id")
    purchase_id: UUID
    paid: Usd = Field(validation_alias="paid_picos", description="What was paid, tax included")
    credited: Usd = Field(validation_alias="credited_picos")
    reversed: Usd = Field(
        validation_alias="reversed_picos",
        description="The credit that refunds and disputes took back",
    )
    is_live: bool
    receipt_url: str | None
    paid_at: Instant


class PaymentPageReply(Page):
    """Payments, newest first."""

    data: list[PaymentReply]


class InvoiceReply(Reply):
    """An invoice as Stripe has it now; the addresses are those of Stripe's own pages.

    `currency` is that of all its amounts.
    """

    id: str = Field(examples=["in_1Q0"])
    number: str | None = Field(examples=["7A1B2C3D-0001"])
    status: str = Field(examples=["paid", "open", "void", "uncollectible"])
    currency: str = Field(examples=["usd"])
    total: Usd = Field(validation_alias="total_picos", description="Tax included")
    tax: Usd = Field(validation_alias="tax_picos")
    paid: Usd = Field(validation_alias="paid_picos")
    created_at: Instant
    page_url: str | None
    pdf_url: str | None


class InvoicePageReply(Page):
    """Invoices, newest first."""

    data: list[InvoiceReply]


class PortalReply(Reply):
    """The page at Stripe where the customer keeps cards."""

    url: str


async def selling_reply(terms: SellingTerms, payments: Payments | None) -> SellingReply:
    """Return the terms of selling, and the mode of the parts that sell; None for none."""
    is_selling = payments is not None and await payments.selling.is_open()
    return SellingReply(
        is_selling=is_selling,
        mode=None if payments is None else _mode(payments.gateway.is_live, is_selling),
        least=format_usd(terms.least_picos),
        most=format_usd(terms.most_picos),
        is_taxed=terms.is_taxed,
        takes_promotion_codes=terms.takes_promotion_codes,
        makes_invoices=terms.makes_invoices,
        credit_days=terms.credit_days,
    )


def _mode(is_live: bool, is_selling: bool) -> str:
    if not is_live:
        return "test"
    return "live" if is_selling else "going_live"
