"""Requests that ended before a decision reached Envoy."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class UndecidedRequest:
    """A request that ended before Envoy had a decision about it.

    Nothing of it reached a provider. A hold may exist for it nevertheless: authz gave
    that hold the same `request_id`, which is Envoy's own.
    """

    request_id: UUID
    at: datetime
