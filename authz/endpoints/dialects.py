"""The endpoints that the providers of a dialect have, and how their bodies differ from ours."""

from collections.abc import Mapping
from typing import Any, Final

from authz.endpoints.chat import CHAT_COMPLETIONS
from authz.endpoints.completions import COMPLETIONS
from authz.endpoints.embeddings import EMBEDDINGS
from authz.endpoints.messages import MESSAGES
from authz.endpoints.responses.endpoint import RESPONSES
from authz.endpoints.rewriting import OPENROUTER_MEMBERS
from authz.endpoints.server_tools import TOOLS_MEMBER, asks_server_tools
from authz.endpoints.table import ALL
from meter.providers.provider import DialectName

_EVERY: Final = frozenset(endpoint.name for endpoint in ALL)
_USUAL: Final = frozenset({CHAT_COMPLETIONS.name, COMPLETIONS.name, EMBEDDINGS.name})
# Anthropic's own API, and OpenAI's layers of Anthropic and Google, have these and no more.
_ENDPOINTS: Final[Mapping[DialectName, frozenset[str]]] = {
    DialectName.OPENROUTER: _EVERY,
    DialectName.OPENAI: _USUAL | {RESPONSES.name},
    DialectName.ANTHROPIC: frozenset({CHAT_COMPLETIONS.name, MESSAGES.name}),
    DialectName.GOOGLE: frozenset({CHAT_COMPLETIONS.name, EMBEDDINGS.name}),
    DialectName.OPENAI_COMPATIBLE: _USUAL,
}


def has_endpoint(dialect: DialectName, endpoint: str) -> bool:
    """Return whether the providers of a dialect have an endpoint, by its name in our books."""
    return endpoint in _ENDPOINTS[dialect]


def limit_member(dialect: DialectName, endpoint: str) -> str | None:
    """Return the member for the limit of a reply; None where every name of it is understood."""
    # OpenAI's models that think refuse `max_tokens` in chats.
    if dialect is DialectName.OPENAI and endpoint == CHAT_COMPLETIONS.name:
        return "max_completion_tokens"
    return None


def has_stream_options(endpoint: str) -> bool:
    """Return whether bodies of an endpoint ask for the usage of a stream, which others have."""
    return endpoint not in (RESPONSES.name, MESSAGES.name)


def tells_cache_lives(dialect: DialectName, endpoint: str) -> bool:
    """Return whether usage tells what a prompt cache of an hour cost, where it was asked for.

    Anthropic names no cost, and our logs count tokens of caches without the time that they live.
    """
    return dialect is not DialectName.ANTHROPIC or endpoint != MESSAGES.name


def find_openrouter_member(endpoint: str, members: Mapping[str, Any]) -> str | None:
    """Return a member that only OpenRouter understands; None where the body has none."""
    if asks_server_tools(members):
        return TOOLS_MEMBER
    for name in OPENROUTER_MEMBERS:
        # In chats, `reasoning` is OpenRouter's. In /responses, it is OpenAI's.
        is_openais = name == "reasoning" and endpoint == RESPONSES.name
        if members.get(name) is not None and not is_openais:
            return name
    return None
