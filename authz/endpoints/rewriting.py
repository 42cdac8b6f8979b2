"""The edits that a body needs for the provider that serves it, and what that provider refuses.

Clients name models as the catalogue does, and write bodies for OpenRouter. Other providers have
names of their own, know fewer members, and report usage of a stream only where they are asked to.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from authz.decision import Edit
from authz.endpoints.body import Body, byte_offset, member_spans, replace_value
from authz.endpoints.members import invalid, refuse_misspelt
from meter.values import light_value

STREAM_OPTIONS_MEMBER: Final = "stream_options"
INCLUDE_USAGE_MEMBER: Final = "include_usage"
# Members that OpenRouter defines. Other providers refuse them, or ignore them without a word.
OPENROUTER_MEMBERS: Final = (
    *("models", "route", "plugins", "provider", "transforms", "usage", "trace", "reasoning"),
    *("include_reasoning", "image_config", "session_id", "debug", "web_search_options"),
)
_STREAM_OPTIONS: Final = frozenset({INCLUDE_USAGE_MEMBER})


@light_value
class Rewrite:
    """The changes of a body for the provider that serves it; each None or False changes nothing.

    `model` and `fallbacks` are the names to write into `model` and `models`. `limit_member` is the
    member for the limit of a reply. `asks_for_usage` has the usage of a stream reported.
    """

    model: str | None = None
    fallbacks: tuple[str, ...] | None = None
    limit_member: str | None = None
    asks_for_usage: bool = False


def refuse_stream_options(members: Mapping[str, Any]) -> None:
    """Refuse stream options into which the demand for usage cannot be written. Raises Refused."""
    options = members.get(STREAM_OPTIONS_MEMBER)
    if options is None:
        return
    if not isinstance(options, dict):
        raise invalid(STREAM_OPTIONS_MEMBER, "an object")
    refuse_misspelt(options, _STREAM_OPTIONS)


def rewrite_members(
    body: Body, spans: Mapping[str, tuple[int, int]], rewrite: Rewrite
) -> list[Edit | str]:
    """Return the edits of a body for its provider; texts are members of its own to add."""
    changes: list[Edit | str] = []
    if rewrite.model is not None:
        changes.append(replace_value(body, *spans["model"], json.dumps(rewrite.model)))
    if rewrite.fallbacks is not None:
        changes.append(replace_value(body, *spans["models"], json.dumps(rewrite.fallbacks)))
    if rewrite.asks_for_usage and body.members.get("stream") is True:
        usage = _ask_for_usage(body, spans.get(STREAM_OPTIONS_MEMBER))
        if usage is not None:
            changes.append(usage)
    return changes


def _ask_for_usage(body: Body, span: tuple[int, int] | None) -> Edit | str | None:
    """Return how the demand for usage gets into the body; None where it is there."""
    member = f'"{INCLUDE_USAGE_MEMBER}":true'
    if span is None:
        return f'"{STREAM_OPTIONS_MEMBER}":{{{member}}}'
    start, end = span
    options = body.members[STREAM_OPTIONS_MEMBER]
    if options is None:
        return replace_value(body, start, end, f"{{{member}}}")
    if options.get(INCLUDE_USAGE_MEMBER) is True:
        return None
    for name, own_start, own_end in member_spans(body.text[start:end]):
        if name == INCLUDE_USAGE_MEMBER:
            return replace_value(body, start + own_start, start + own_end, "true")
    return Edit(byte_offset(body, start + 1), 0, f"{member}," if options else member)
