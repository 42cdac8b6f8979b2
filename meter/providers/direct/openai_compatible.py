"""The dialect of other servers in the shape of OpenAI: vLLM, Ollama, Groq, a server of our own."""

from typing import Final

from meter.providers.direct.model_list import checking_by, listing_by, same_name
from meter.providers.provider import Dialect, DialectName
from meter.settlement.billing_terms import CAUTIOUS

DIALECT: Final = Dialect(
    name=DialectName.OPENAI_COMPATIBLE,
    billing=CAUTIOUS,
    base_url=None,
    model_prefix="",
    needs_key=False,
    asks_for_usage=True,
    takes_openrouter_members=False,
    # A 503 may come from a proxy in the middle of a generation.
    unbilled_statuses=frozenset({429}),
    fetch_catalogue=listing_by(same_name),
    check_key=checking_by(),
)
