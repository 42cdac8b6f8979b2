"""The table of endpoints. A new endpoint is a file beside this one, and a line here."""

from collections.abc import Mapping
from typing import Final

from authz.decision import ErrorShape
from authz.endpoints.chat import CHAT_COMPLETIONS
from authz.endpoints.completions import COMPLETIONS
from authz.endpoints.embeddings import EMBEDDINGS
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.measured.images import IMAGES
from authz.endpoints.measured.rerank import RERANK
from authz.endpoints.measured.speech import SPEECH
from authz.endpoints.measured.transcriptions import TRANSCRIPTIONS
from authz.endpoints.messages import MESSAGES
from authz.endpoints.responses.endpoint import RESPONSES

ALL: Final = (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MESSAGES,
    RESPONSES,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
)
# OpenAI's base, the one of the system that this one replaces, and OpenRouter's own.
_REPLACED_BASE: Final = "/api/v1/llm/"
_OPENROUTER_BASE: Final = "/api/v1/"
PREFIXES: Final = ("/v1/", _REPLACED_BASE, _OPENROUTER_BASE)

# Exactly these paths reach a provider (R10). The router of Envoy has the same list.
ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    prefix + path: endpoint for prefix in PREFIXES for endpoint in ALL for path in endpoint.paths
}

_MESSAGES_PATHS: Final = frozenset(prefix + path for prefix in PREFIXES for path in MESSAGES.paths)


def error_shape(path: str) -> ErrorShape:
    """Return the shape in which the clients of a path, which may have a query, read errors."""
    path = path.partition("?")[0]
    if path in _MESSAGES_PATHS:
        return ErrorShape.ANTHROPIC
    is_openrouter = path.startswith(_OPENROUTER_BASE) and not path.startswith(_REPLACED_BASE)
    return ErrorShape.OPENROUTER if is_openrouter else ErrorShape.OPENAI
