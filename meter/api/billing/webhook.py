"""The webhook of Stripe: stores events, each once; a worker follows them later."""

from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.security import APIKeyHeader
from pydantic import Field

from meter.api.billing.replies import FromPayments
from meter.api.fields import Reply
from meter.api.problems import ProblemError
from meter.payments.stripe_facts import WebhookRefused

# Stripe's events have some tens of KiB at most. More is not read.
MAX_WEBHOOK_BYTES: Final = 256 * 1024
# This only describes the scheme in the OpenAPI document. The gateway verifies.
_signature_scheme = APIKeyHeader(
    name="Stripe-Signature",
    scheme_name="stripeSignature",
    description="Stripe's signature over the raw body: `TOLLKEEPER_STRIPE_WEBHOOK_SECRET`.",
    auto_error=False,
)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "An event of Stripe.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
}

router = APIRouter(prefix="/api/v1/webhooks", tags=["Payments"])


class WebhookReply(Reply):
    """The answer to an event, with whether it is new."""

    is_new: bool = Field(examples=[True])


@router.post(
    "/stripe",
    summary="Report an event of Stripe",
    operation_id="post_stripe_event",
    openapi_extra=_BODY,
    dependencies=[Depends(_signature_scheme)],
)
async def take_stripe_event(request: Request, payments: FromPayments) -> WebhookReply:
    """Store an event that Stripe signed. May be repeated.

    Nothing is read of the event but the object that it is about. That object is then fetched.
    """
    body = await _read_raw(request)
    signatures = request.headers.getlist("stripe-signature")
    try:
        event = payments.gateway.read_event(body, signatures[0] if len(signatures) == 1 else None)
    except WebhookRefused as error:
        payments.metrics.events.labels("webhook", "refused").inc()
        raise ProblemError(400, "webhook_refused", str(error)) from None
    new = await payments.events.add([event], event.is_live, "webhook")
    payments.metrics.events.labels("webhook", "stored" if new else "repeated").inc()
    payments.worker.wake()
    return WebhookReply(is_new=bool(new))


async def _read_raw(request: Request) -> bytes:
    """Return the body as it was sent: the signature covers these bytes and no others."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_WEBHOOK_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_WEBHOOK_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> ProblemError:
    return ProblemError(413, "request_too_large", "the body is larger than 256 KiB")
