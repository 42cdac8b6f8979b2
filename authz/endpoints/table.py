"""The table of endpoints. A new endpoint is a file beside this one, and a line here."""

from collections.abc import Mapping
from typing import Final

from authz.endpoints.chat import CHAT_COMPLETIONS
from authz.endpoints.completions import COMPLETIONS
from authz.endpoints.embeddings import EMBEDDINGS
from authz.endpoints.endpoint import Endpoint

ALL: Final = (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    EMBEDDINGS,
)
PREFIXES: Final = ("/v1/", "/api/v1/llm/")

# Exactly these paths reach a provider (R10). The router of Envoy has the same list.
ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    prefix + path: endpoint for prefix in PREFIXES for endpoint in ALL for path in endpoint.paths
}
