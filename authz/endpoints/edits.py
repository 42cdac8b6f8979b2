"""The edits of bodies that ask for text: the limit of the reply, the report tag, the prices."""

from functools import lru_cache
from typing import Final

from authz.decision import Edit
from authz.endpoints.body import Body, member_spans, replace_value
from authz.endpoints.openrouter import (
    PROVIDER_MEMBER,
    TRACE_MEMBER,
    limit_price,
    limit_price_member,
    tag_report,
)
from authz.endpoints.rewriting import Rewrite, rewrite_members
from authz.endpoints.server_tools import TOOLS_MEMBER, asks_server_tools, limit_server_tools
from meter.pricing.prices import PriceCeiling

# Providers read one name or the other.
LIMIT_MEMBERS: Final[tuple[str, ...]] = ("max_tokens", "max_completion_tokens")


def edit_body(
    body: Body,
    max_tokens: int | None,
    report_tag: str | None,
    ceiling: PriceCeiling | None = None,
    rewrite: Rewrite | None = None,
    limit_members: tuple[str, ...] = LIMIT_MEMBERS,
    constants: tuple[tuple[str, str], ...] = (),
) -> tuple[Edit, ...]:
    """Return the edits that write what the decision adds to a body, in ascending order.

    None writes nothing. The limit of the reply is for a body that names none. The tag stands where
    the provider's report of the request will repeat it. The ceiling tells the provider the prices
    that the estimate assumes. The rewrite has what another provider or name of a model needs.
    An endpoint has its own names of the limit, and constants: members with the JSON text of the
    value that is written where the body names none.
    """
    members = body.members
    has_server_tools = "tools" in members and asks_server_tools(members)
    if (
        max_tokens is None
        and not has_server_tools
        and report_tag is None
        and rewrite is None
        and ceiling
        and PROVIDER_MEMBER not in members
        and not constants
    ):
        return _limit_price_alone(ceiling, body.text.index("{") + 1, bool(members))
    wanted: tuple[str, ...] = () if max_tokens is None else limit_members
    if report_tag is not None:
        wanted += (TRACE_MEMBER,)
    if ceiling is not None:
        wanted += (PROVIDER_MEMBER,)
    if has_server_tools:
        wanted += (TOOLS_MEMBER,)
    missing = [(name, text) for name, text in constants if members.get(name) is None]
    wanted += tuple(name for name, _ in missing)
    spans: dict[str, tuple[int, int]] = {}
    if rewrite is not None or not members.keys().isdisjoint(wanted):
        spans = {name: (start, end) for name, start, end in member_spans(body.text)}
    changes: list[Edit | str] = []
    if max_tokens is not None:
        named = limit_members
        if rewrite is not None and rewrite.limit_member is not None:
            named = (rewrite.limit_member,)
        # In the place of the first limit that is null, else a member of its own.
        nulls = (span for name, span in spans.items() if name in named and members[name] is None)
        null = next(nulls, None)
        changes.append(
            f'"{named[0]}":{max_tokens}'
            if null is None
            else replace_value(body, *null, str(max_tokens))
        )
    for name, text in missing:
        place = spans.get(name)
        changes.append(f'"{name}":{text}' if place is None else replace_value(body, *place, text))
    if report_tag is not None:
        changes.append(tag_report(body, spans.get(TRACE_MEMBER), report_tag))
    if ceiling is not None:
        changes.append(limit_price(body, spans.get(PROVIDER_MEMBER), ceiling))
    if has_server_tools:
        changes += limit_server_tools(body, spans)
    if rewrite is not None:
        changes += rewrite_members(body, spans, rewrite)
    edits = [one for one in changes if isinstance(one, Edit)]
    edits.sort(key=lambda one: one.offset)
    if new_members := [one for one in changes if isinstance(one, str)]:
        # New members stand before all others, so their edit is the first.
        comma = "," if members else ""
        edits.insert(0, Edit(body.text.index("{") + 1, 0, ",".join(new_members) + comma))
    return tuple(edits)


def edit_for_provider(
    body: Body,
    max_tokens: int | None,
    report_tag: str | None,
    ceiling: PriceCeiling | None,
    rewrite: Rewrite | None,
) -> tuple[Edit, ...]:
    """Return the edits of a body that takes no tag, no limit of a reply, and no prices."""
    return edit_body(body, None, None, None, rewrite)


@lru_cache(maxsize=4_096)
def _limit_price_alone(ceiling: PriceCeiling, offset: int, has_members: bool) -> tuple[Edit, ...]:
    """Return the edit of most bodies, which depends on nothing but the prices of their models."""
    member = limit_price_member(ceiling)
    return (Edit(offset, 0, f"{member}," if has_members else member),)
