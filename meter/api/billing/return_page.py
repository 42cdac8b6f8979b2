"""The page to which Stripe sends a customer back; it fulfils what was paid."""

import re
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from meter.api.billing.replies import FromPayments
from meter.errors import MeterError
from meter.payments.purchase import PurchaseState

_SESSION_ID: Final = re.compile(r"cs_[A-Za-z0-9_]{1,250}")
_SENTENCES: Final = {
    PurchaseState.PAID: ("Thank you", "Your payment arrived and your credit is there."),
    PurchaseState.OPEN: ("Your payment is on its way", "Your credit comes as soon as it arrives."),
    PurchaseState.ENDED: ("Nothing was paid", "The purchase has ended. You may buy again."),
}
_CANCELED: Final = ("Nothing was paid", "You left the page before paying. You may buy again.")
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}}
</style></head><body><main><h1>{title}</h1><p>{sentence}</p></main></body></html>
"""
_REFRESH: Final = '<meta http-equiv="refresh" content="5">'
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/api/v1/billing", tags=["Payments"])


@router.get(
    "/return", summary="Return from paying", response_class=HTMLResponse, include_in_schema=False
)
async def return_from_paying(
    payments: FromPayments, session_id: Annotated[str, Query(max_length=300)] = ""
) -> HTMLResponse:
    """Show what became of a purchase. The webhook may come later, or never, and changes nothing.

    Only sessions of ours are asked for at Stripe, and only until they are paid.
    """
    if _SESSION_ID.fullmatch(session_id) is None:
        return _page(*_CANCELED)
    purchase = await payments.purchases.find_of_session(session_id)
    if purchase is not None and purchase.state is PurchaseState.OPEN:
        try:
            await payments.fulfilment.follow_session(session_id)
        except MeterError as error:
            # The webhook and the sweep come after us.
            _log.warning("return_not_fulfilled", session_id=session_id, reason=str(error))
        purchase = await payments.purchases.find_of_session(session_id)
    if purchase is None:
        return _page(*_CANCELED)
    is_open = purchase.state is PurchaseState.OPEN
    return _page(*_SENTENCES[purchase.state], _REFRESH if is_open else "")


def _page(title: str, sentence: str, refresh: str = "") -> HTMLResponse:
    page = _PAGE.format(title=title, sentence=sentence, refresh=refresh)
    return HTMLResponse(page, headers=_HEADERS)
