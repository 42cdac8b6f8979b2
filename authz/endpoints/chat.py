"""POST /chat/completions: replies to a conversation, in OpenAI's form."""

from typing import Final

from authz.decision import Deny
from authz.endpoints.body import Body, read_body
from authz.endpoints.demand import bound_demand, read_generated_replies
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint
from meter.pricing.prices import Demand


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded."""
    return bound_demand(body, is_online, read_generated_replies)


CHAT_COMPLETIONS: Final = Endpoint(
    name="chat_completions",
    paths=("chat/completions",),
    read=read_body,
    bound=bound,
    edits=edit_body,
)
