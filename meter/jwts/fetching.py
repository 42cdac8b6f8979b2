"""Fetching what issuers publish: over verified TLS, bounded, and never from inside our network."""

from collections.abc import Mapping
from typing import Any, Protocol


class DocumentSource(Protocol):
    """Where discovery documents and key sets come from."""

    async def fetch_object(self, url: str) -> Mapping[str, Any]:
        """The JSON object at an https address. Raises IssuerUnavailable."""
        ...
