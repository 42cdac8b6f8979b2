"""Entries of the logs that make a given observation, for tests of what settles them."""

import json
from decimal import Decimal

from meter.ingest.ending import EntryFacts, NotedUsage
from meter.usage.usage import Observation, ReportedUsage


def entry_of(observation: Observation) -> EntryFacts:
    """The facts that `observation_from_facts` makes this observation of, whatever its source."""
    status, upstream_ms = observation.provider_status, observation.upstream_ms
    is_same = status == observation.status_code
    sent_ms = observation.latency_ms - (upstream_ms or 0)
    return EntryFacts(
        hold_id=observation.hold_id.bytes,
        started_at=observation.started_at,
        duration_ms=observation.latency_ms,
        first_byte_ms=observation.time_to_first_byte_ms,
        status_code=observation.status_code,
        is_upstreams=is_same,
        flags=observation.response_flags,
        upstream_sent_ms=sent_ms if observation.reached_provider else None,
        is_streaming=observation.is_streaming,
        generation_id=observation.generation_id,
        usage=NotedUsage(
            usage_json=None if observation.usage is None else _text(observation.usage),
            has_error=observation.has_error or None,
        ),
        upstream_status=None if is_same else status,
        response_bytes=observation.response_bytes,
    )


def _text(usage: ReportedUsage) -> str:
    """A usage object as providers write it, with the digits of its costs."""
    tokens = usage.tokens
    members = {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "is_byok": usage.is_byok,
    }
    digits = {"cost": usage.cost_usd, "upstream": usage.upstream_cost_usd}
    if usage.cost_usd is not None:
        members["cost"] = "?cost?"
    if usage.upstream_cost_usd is not None:
        members["cost_details"] = {"upstream_inference_cost": "?upstream?"}
    text = json.dumps(members)
    for name, number in digits.items():
        # A float would not have all digits.
        text = text.replace(f'"?{name}?"', str(number if number is not None else Decimal(0)))
    return text
