"""The value that describes one endpoint to the rest of authz."""

from collections.abc import Callable
from dataclasses import dataclass

from authz.decision import Deny, Edit
from authz.endpoints.body import Body
from authz.endpoints.rewriting import Rewrite
from authz.request import AuthRequest
from meter.pricing.prices import Demand, PriceCeiling


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of the inference API.

    `name` stands in holds, usage records, logs and metrics; it never changes. `paths` stand below
    each of the prefixes in `table.py`.

    `read` takes the request and the most bytes of a body. `bound` takes the body, and whether a
    model's name asks for web search. `edits` takes the body, the limit to write into it, the tag
    for the provider's report, the prices not to exceed, and the rewrite for the provider that
    serves it; None writes nothing.
    """

    name: str
    paths: tuple[str, ...]
    read: Callable[[AuthRequest, int], Body | Deny]
    bound: Callable[[Body, bool], Demand | Deny]
    edits: Callable[
        [Body, int | None, str | None, PriceCeiling | None, Rewrite | None], tuple[Edit, ...]
    ]
