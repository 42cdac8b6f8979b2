"""POST /embeddings: vectors for texts. There is no reply whose tokens would be billed."""

from typing import Final

from authz.decision import Deny
from authz.endpoints.body import Body, read_body
from authz.endpoints.demand import Replies, bound_demand, read_choices, read_limit
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint
from meter.pricing.prices import Demand
from meter.usage.endpoints import EMBEDDINGS as NAME


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded."""
    return bound_demand(body, is_online, _read_replies)


def _read_replies(body: Body) -> Replies:
    choices = read_choices(body.members)
    # The limit does not count here. It is read because a wrong value is refused everywhere.
    read_limit(body.members)
    return Replies(limit_tokens=0, choices=choices, extra_tokens=0)


EMBEDDINGS: Final = Endpoint(
    name=NAME,
    paths=("embeddings",),
    read=read_body,
    bound=bound,
    edits=edit_body,
)
