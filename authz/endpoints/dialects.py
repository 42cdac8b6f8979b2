"""The endpoints that the providers of a dialect have, and their names of the limit of a reply."""

from collections.abc import Mapping
from typing import Final

from authz.endpoints.chat import CHAT_COMPLETIONS
from authz.endpoints.completions import COMPLETIONS
from authz.endpoints.embeddings import EMBEDDINGS
from authz.endpoints.table import ALL
from meter.providers.provider import DialectName

_EVERY: Final = frozenset(endpoint.name for endpoint in ALL)
_USUAL: Final = frozenset({CHAT_COMPLETIONS.name, COMPLETIONS.name, EMBEDDINGS.name})
# OpenAI's layers of Anthropic and Google have these, and no more.
_ENDPOINTS: Final[Mapping[DialectName, frozenset[str]]] = {
    DialectName.OPENROUTER: _EVERY,
    DialectName.OPENAI: _USUAL,
    DialectName.ANTHROPIC: frozenset({CHAT_COMPLETIONS.name}),
    DialectName.GOOGLE: frozenset({CHAT_COMPLETIONS.name, EMBEDDINGS.name}),
    DialectName.OPENAI_COMPATIBLE: _USUAL,
}


def has_endpoint(dialect: DialectName, endpoint: str) -> bool:
    """Return whether the providers of a dialect have an endpoint, by its name in our books."""
    return endpoint in _ENDPOINTS[dialect]


def limit_member(dialect: DialectName, endpoint: str) -> str | None:
    """Return the member for the limit of a reply; None where every name of it is understood."""
    # OpenAI's models that think refuse `max_tokens` in chats.
    if dialect is DialectName.OPENAI and endpoint != COMPLETIONS.name:
        return "max_completion_tokens"
    return None
