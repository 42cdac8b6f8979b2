"""Reads OpenRouter's Broadcast: traces of finished generations, as OTLP JSON.

Of a trace three words are read: our tag, the id of the generation, and its cost. The cost is not
believed: where it differs from what was settled, the provider's own record is asked for. The
names are those of OpenRouter's documentation (Broadcast, Webhook).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Final

from meter.errors import InvalidRequest

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


@dataclass(frozen=True, slots=True)
class Report:
    """That a generation ended whose request had carried this tag, or a trace id not of ours.

    `cost_usd` is None where it is not said; it is only compared, never charged.
    """

    tag: str
    generation_id: str
    cost_usd: Decimal | None = None


def read_reports(body: bytes) -> tuple[Report, ...]:
    """The reports in a payload, each once; none in an empty one, as a test of the connection has.

    Spans without a tag or generation id are left out: one odd span takes nothing from the others.
    Raises InvalidRequest when the payload is no OTLP JSON, or has more than MAX_SPANS spans.
    """
    reports: dict[Report, None] = {}
    for number, span in enumerate(_spans(_parse(body))):
        if number >= MAX_SPANS:
            raise InvalidRequest(f"a payload may have {MAX_SPANS} spans")
        report = _report(span)
        if report is not None:
            reports[report] = None
    return tuple(reports)


def _parse(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        payload = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError, InvalidOperation):
        raise InvalidRequest("the payload is not valid JSON") from None
    if not isinstance(payload, dict) or not isinstance(payload.get("resourceSpans", []), list):
        raise InvalidRequest("the payload is not OTLP JSON: `resourceSpans` must be a list")
    return payload


def _spans(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in _objects(payload, "resourceSpans"):
        for scope in _objects(resource, "scopeSpans"):
            yield from _objects(scope, "spans")


def _objects(owner: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    found = owner.get(name)
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, dict))


def _report(span: dict[str, Any]) -> Report | None:
    # The texts among the attributes that are read.
    found: dict[str, str] = {}
    for number, attribute in enumerate(_objects(span, "attributes")):
        if number >= MAX_ATTRIBUTES:
            break
        name, value = attribute.get("key"), attribute.get("value")
        text = value.get("stringValue") if isinstance(value, dict) else None
        if isinstance(name, str) and name in _TEXTS and isinstance(text, str):
            found[name] = text
    attributes = found
    generation_id = attributes.get(GENERATION_ID_ATTRIBUTE, "")
    # Any trace id of a client's could be a tag by its looks; our own member cannot be mistaken.
    tag = attributes.get(TAG_ATTRIBUTE) or span.get("traceId")
    if not isinstance(tag, str) or _GENERATION_ID.fullmatch(generation_id) is None:
        return None
    return Report(tag.lower(), generation_id, _cost(span))


def _cost(span: dict[str, Any]) -> Decimal | None:
    for attribute in islice(_objects(span, "attributes"), MAX_ATTRIBUTES):
        value = attribute.get("value")
        if attribute.get("key") == COST_ATTRIBUTE and isinstance(value, dict):
            number = value.get("doubleValue")
            if isinstance(number, bool) or not isinstance(number, Decimal | int) or number < 0:
                return None
            return Decimal(number)
    return None
