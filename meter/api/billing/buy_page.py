"""The page on which a person buys credit with an API key, until there is a console."""

import base64
import hashlib
from html import escape
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from meter.api.billing.replies import FromPayments
from meter.api.services import FromPurchases
from meter.money import format_usd

# The key goes into the header of one request to this gateway, and nowhere else.
_SCRIPT: Final = """
const form = document.querySelector("form"), told = document.querySelector("[role=alert]");
form.addEventListener("submit", async (sent) => {
  sent.preventDefault();
  told.textContent = "";
  const answer = await fetch("checkout", {
    method: "POST",
    headers: {
      "Authorization": "Bearer " + form.key.value.trim(),
      "Content-Type": "application/json",
    },
    body: JSON.stringify({ amount: form.amount.value.trim(), save_card: form.card.checked }),
  });
  const found = await answer.json();
  if (answer.ok) location.assign(found.url);
  else told.textContent = found.detail;
});
"""
_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:10vh auto;padding:0 1rem}"
    "label{display:block;margin:1rem 0}input:not([type=checkbox]){display:block;width:100%;"
    "font:inherit;padding:.4rem;box-sizing:border-box}button{font:inherit;padding:.5rem 1rem}"
    "[role=alert]{color:#b00}.mode{background:#fd6;padding:.2rem .5rem}"
)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Buy credit</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><h1>Buy credit</h1>{mode}
<form><label>API key with the scope billing:write
<input name="key" type="password" autocomplete="off" required></label>
<label>US dollars, from {least} to {most}<input name="amount" inputmode="decimal" required></label>
<label><input name="card" type="checkbox"> Keep my card for automatic top-ups</label>
<button>Continue to payment</button><p role="alert"></p></form></main>
<script>{script}</script></body></html>
"""


def _source(text: str) -> str:
    """Return what a Content-Security-Policy says to allow just this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": f"default-src 'none'; connect-src 'self'; form-action 'none'; "
    f"base-uri 'none'; frame-ancestors 'none'; style-src {_source(_STYLE)}; "
    f"script-src {_source(_SCRIPT)}",
}
_TEST_MODE: Final = '<p class="mode">Test mode: no money moves</p>'

router = APIRouter(prefix="/api/v1/billing", tags=["Payments"])


@router.get("/buy", summary="Buy credit", response_class=HTMLResponse, include_in_schema=False)
async def show_buy_page(payments: FromPayments, purchases: FromPurchases) -> HTMLResponse:
    """Show the form; the browser opens the checkout with the key that is typed in."""
    terms = await purchases.get_terms()
    page = _PAGE.format(
        style=_STYLE,
        script=_SCRIPT,
        mode="" if payments.gateway.is_live else _TEST_MODE,
        least=escape(format_usd(terms.least_picos)),
        most=escape(format_usd(terms.most_picos)),
    )
    return HTMLResponse(page, headers=_HEADERS)
