"""Reads OpenRouter's Broadcast: traces of finished generations, as OTLP JSON.

Three values of a trace are read: our tag, the id of the generation, and its cost. The cost is only
compared: where it differs from what was settled, the provider's own record is asked for. The names
are those of OpenRouter's documentation (Broadcast, Webhook).
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Final

from meter.errors import InvalidRequest
from meter.providers.provider import Report

MAX_SPANS: Final = 10_000
MAX_ATTRIBUTES: Final = 200
MAX_GENERATION_ID_CHARS: Final = 200
GENERATION_ID_ATTRIBUTE: Final = "gen_ai.response.id"
# Where the body had a `trace` of the client's own, our tag is a key beside the client's.
TAG_MEMBER: Final = "tollkeeper"
TAG_ATTRIBUTE: Final = f"trace.metadata.{TAG_MEMBER}"
COST_ATTRIBUTE: Final = "gen_ai.usage.total_cost"
_TEXTS: Final = frozenset({GENERATION_ID_ATTRIBUTE, TAG_ATTRIBUTE})
_GENERATION_ID = re.compile(rf"[!-~]{{1,{MAX_GENERATION_ID_CHARS}}}")


def read_reports(body: bytes) -> tuple[Report, ...]:
    """Return the reports in a payload, each once; none for an empty one, which tests a connection.

    Spans without a tag or generation id are left out: one odd span takes nothing from the others.
    Raises InvalidRequest when the payload is no OTLP JSON, or has more than MAX_SPANS spans.
    """
    if not body.strip():
        return ()
    try:
        payload = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError, InvalidOperation):
        raise InvalidRequest("the payload is not valid JSON") from None
    if not isinstance(payload, dict) or not isinstance(payload.get("resourceSpans", []), list):
        raise InvalidRequest("the payload is not OTLP JSON: `resourceSpans` must be a list")
    spans = (
        span
        for resource in _objects(payload, "resourceSpans")
        for scope in _objects(resource, "scopeSpans")
        for span in _objects(scope, "spans")
    )
    reports: dict[Report, None] = {}
    for number, span in enumerate(spans):
        if number >= MAX_SPANS:
            raise InvalidRequest(f"a payload may have {MAX_SPANS} spans")
        report = _read_span(span)
        if report is not None:
            reports[report] = None
    return tuple(reports)


def _read_span(span: dict[str, Any]) -> Report | None:
    texts: dict[str, str] = {}
    cost_usd: Decimal | None = None
    has_cost = False
    for attribute in islice(_objects(span, "attributes"), MAX_ATTRIBUTES):
        name, value = attribute.get("key"), attribute.get("value")
        if not isinstance(name, str) or not isinstance(value, dict):
            continue
        text = value.get("stringValue")
        if name in _TEXTS and isinstance(text, str):
            texts[name] = text
        elif name == COST_ATTRIBUTE and not has_cost:
            # The first cost counts, even where it cannot be read.
            has_cost = True
            number = value.get("doubleValue")
            if isinstance(number, Decimal | int) and not isinstance(number, bool) and number >= 0:
                cost_usd = Decimal(number)
    generation_id = texts.get(GENERATION_ID_ATTRIBUTE, "")
    # A trace id of the client's own may look like a tag; our own member cannot be mistaken.
    tag = texts.get(TAG_ATTRIBUTE) or span.get("traceId")
    if not isinstance(tag, str) or _GENERATION_ID.fullmatch(generation_id) is None:
        return None
    return Report(tag.lower(), generation_id, cost_usd)


def _objects(owner: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    found = owner.get(name)
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, dict))
