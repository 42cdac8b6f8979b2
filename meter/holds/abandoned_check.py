"""Requests that ended before a decision reached Envoy."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class UndecidedRequest:
    """A request that Envoy asked about, or was about to, and that ended without an answer.

    Nothing of it reached a provider. A hold may have been placed for it all the same: authz gave
    that hold the same `request_id`, which is Envoy's own.
    """

    request_id: UUID
    at: datetime
