"""The paths that clients of OpenAI, Anthropic and OpenRouter call, and help for wrong ones.

Envoy serves inference itself. It sends every other path below the bases of these clients here, so
that the answer can name the path that was meant. No sentence repeats the path of the request: a
key may stand in it.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from meter.api import inference

MAX_PATH_CHARS: Final = 200
# Reads that the meter answers below each base.
READS: Final = ("models", "key", "credits", "generation")
_SIMILARITY: Final = 0.6
_NATIVE_READS: Final = re.compile(r"/api/v1/(?:models|model|key|generation)(?:/.*)?")
# What may stand before an endpoint at other services: it is no part of our paths.
_FOREIGN_BASES: Final = frozenset(
    {"v1", "v1beta", "api", "llm", "openai", "openrouter", "anthropic", "azure"}
)
_NAMING_BASES: Final = frozenset({"deployments", "engines"})
_NOT_OFFERED: Final[Mapping[str, str]] = {
    "assistants": "Assistants are not offered; send the conversation to chat/completions",
    "audio/translations": "Translations of speech are not offered",
    "batches": "Batches are not offered; send the requests one by one",
    "chatkit": "ChatKit is not offered",
    "containers": "Containers are not offered",
    "conversations": "Conversations keep state at the provider; send all messages each time",
    "evals": "Evals are not offered",
    "files": "Files are not stored here; send their content in the messages",
    "fine-tunes": "Fine-tuning is not offered",
    "fine_tuning": "Fine-tuning is not offered",
    "images/edits": "Edits of images are not offered",
    "images/variations": "Variations of images are not offered",
    "messages/batches": "Batches are not offered; send the requests one by one",
    "moderations": "Moderations are not offered",
    "organization": "The provider's organisation is not managed here",
    "organizations": "The provider's organisation is not managed here",
    "realtime": "Realtime sessions are not offered",
    "skills": "Skills are not offered",
    "threads": "Threads are not offered; send the conversation to chat/completions",
    "uploads": "Files are not stored here; send their content in the messages",
    "vector_stores": "Vector stores are not offered",
    "videos": "Videos are not offered",
}


def is_of_clients(path: str) -> bool:
    """Return whether the clients of these services read the answer, so that errors fit them."""
    return (
        path.startswith(("/v1/", "/api/v1/llm/"))
        or _NATIVE_READS.fullmatch(path) is not None
        or _endpoint_in(path) is not None
    )


def is_of_openrouter(path: str) -> bool:
    """Return whether a path of clients is below the base of OpenRouter's own."""
    return path.startswith("/api/v1/") and not path.startswith("/api/v1/llm/")


def advise(path: str) -> str | None:
    """Return what to call instead of a path that does not exist; None where nothing is known."""
    endpoint = _endpoint_in(path)
    if endpoint is None:
        is_near = path.startswith(("/v1/", "/api/v1/llm/"))
        return f"There is nothing at this path. {_everything()}" if is_near else None
    if endpoint in _NOT_OFFERED:
        return f"{_NOT_OFFERED[endpoint]}. {_everything()}"
    method = "GET" if endpoint in READS else "POST"
    if any(path == f"{base}/{endpoint}" for base, *_ in inference.BASES):
        return f"This path takes {method}."
    base_url = (
        "Clients of Anthropic add /v1 themselves: their base URL ends before it."
        if endpoint.startswith("messages")
        else "The base URL of a client ends in /v1, without a slash behind it."
    )
    return f"There is nothing at this path. Send {method} to /v1/{endpoint}. {base_url}"


def _everything() -> str:
    posts = ", ".join(sorted(path[1:] for path in inference.PATHS))
    return f"Below /v1 there are POST {posts}; GET {', '.join(READS)}."


def _endpoint_in(path: str) -> str | None:
    """Return the endpoint, offered or not, that a wrong path means; None for none."""
    names = [name for name in path[:MAX_PATH_CHARS].lower().split("/") if name]
    # Our own API has the base of OpenRouter's clients, and words that are near theirs, such as
    # transactions: only what is written exactly is one of theirs there.
    is_ours = names[:2] == ["api", "v1"] and names[2:3] != ["llm"]
    while names and (names[0] in _FOREIGN_BASES or names[0] in _NAMING_BASES):
        # Azure's paths have the name of the deployment, and those of old engines that of the model.
        del names[: 2 if names[0] in _NAMING_BASES else 1]
    for length in (2, 1):
        beginning = "/".join(names[:length])
        if beginning in _NOT_OFFERED:
            return beginning
    meant, offered = "/".join(names), [path[1:] for path in inference.PATHS]
    if is_ours:
        return meant if meant in offered else None
    return next(iter(get_close_matches(meant, [*offered, *READS], 1, _SIMILARITY)), None)
