"""Anthropic's dialect, at its endpoint in the shape of OpenAI."""

import re
from collections.abc import Mapping
from typing import Final

from meter.providers.direct.model_list import checking_by, listing_by
from meter.providers.provider import Dialect, DialectName
from meter.sealing import SecretText
from meter.settlement.billing_terms import BillingTerms

API_VERSION: Final = "2023-06-01"
_DATE: Final = re.compile(r"-\d{8}$")
# OpenRouter writes `claude-opus-4.1` for Anthropic's `claude-opus-4-1`.
_VERSION: Final = re.compile(r"(?<=-)(\d)-(\d)(?=-|$)")


def present(key: SecretText) -> Mapping[str, str]:
    """Present a key as Anthropic's own endpoints ask for it; the listing is one of them."""
    return {"x-api-key": key.reveal(), "anthropic-version": API_VERSION}


def read_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a name, and the names that OpenRouter may have, which separate versions by a dot."""
    undated = _DATE.sub("", name)
    return name, tuple(dict.fromkeys((_VERSION.sub(r"\1.\2", undated), undated, name)))


DIALECT: Final = Dialect(
    name=DialectName.ANTHROPIC,
    billing=BillingTerms(names_costs=False, refusals_are_free=True, has_records=False),
    base_url="https://api.anthropic.com/v1",
    model_prefix="anthropic/",
    needs_key=True,
    asks_for_usage=True,
    takes_openrouter_members=False,
    # 529: "The API is temporarily overloaded."
    unbilled_statuses=frozenset({429, 503, 529}),
    # A page has 20 models unless it is asked for more, 1,000 at most.
    fetch_catalogue=listing_by(read_name, to_headers=present, limit="1000"),
    check_key=checking_by(to_headers=present),
)
