"""Rows of the bill as OTLP JSON, the way OpenRouter's Broadcast writes them."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime

from tollkeeper.simulator.bill import BillRow

SPAN_KIND_CLIENT = 3
STATUS_OK = 1
NANOS_PER_MICRO = 1_000


def payload(rows: Iterable[BillRow]) -> bytes:
    """One body with a span for each row."""
    spans = ",".join(_span(row) for row in rows)
    resource = json.dumps({"attributes": [_text("service.name", "openrouter")]})
    scope = json.dumps({"name": "openrouter", "version": "1.0.0"})
    return (
        f'{{"resourceSpans":[{{"resource":{resource}'
        f',"scopeSpans":[{{"scope":{scope},"spans":[{spans}]}}]}}]}}'
    ).encode()


def _span(row: BillRow) -> str:
    own_id = hashlib.sha256(row.generation_id.encode()).hexdigest()
    moment = datetime.fromisoformat(row.at)
    micros = int(moment.timestamp()) * 1_000_000 + moment.microsecond
    began = str(micros * NANOS_PER_MICRO)
    span = {
        "traceId": own_id[:32] if row.trace_id is None else row.trace_id,
        "spanId": own_id[32:48],
        "name": "chat",
        "kind": SPAN_KIND_CLIENT,
        "startTimeUnixNano": began,
        "endTimeUnixNano": began,
        "status": {"code": STATUS_OK},
    }
    # As text: the cost is a decimal, and json would make it a float.
    attributes = ",".join(
        [
            *(
                json.dumps(one)
                for one in [
                    _text("gen_ai.operation.name", "chat"),
                    _text("gen_ai.response.id", row.generation_id),
                    _text("gen_ai.request.model", row.model),
                    _text("gen_ai.response.model", row.model),
                    _text("gen_ai.response.finish_reason", row.finish_reason),
                    _count("gen_ai.usage.input_tokens", row.prompt_tokens),
                    _count("gen_ai.usage.output_tokens", row.completion_tokens),
                    *(
                        _text(f"trace.metadata.{name}", value)
                        for name, value in row.trace_metadata.items()
                    ),
                ]
            ),
            (f'{{"key":"gen_ai.usage.total_cost","value":{{"doubleValue":{row.cost}}}}}'),
        ]
    )
    return f'{json.dumps(span)[:-1]},"attributes":[{attributes}]}}'


def _text(name: str, value: str) -> dict[str, object]:
    return {"key": name, "value": {"stringValue": value}}


def _count(name: str, count: int) -> dict[str, object]:
    """OTLP JSON writes 64-bit integers as strings."""
    return {"key": name, "value": {"intValue": str(count)}}
