"""Fetches the provider's record of one generation: OpenRouter's `GET /generation?id=`.

The record comes some seconds after the generation has ended, and it is the truth about its cost.
"""

from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from meter.errors import ProviderUnavailable
from meter.providers.fetching import Bounds, fetch, read_members, read_usd
from meter.providers.provider import GenerationRecord
from meter.sealing import SecretText
from meter.usage.usage import ReportedUsage, TokenCounts

PATH: Final = "/generation"
BOUNDS: Final = Bounds(timeout_s=10.0, body_bytes=256 * 1024)
# No model reads more: a larger number is an error of the provider.
MAX_TOKENS: Final = 2**40


async def fetch_generation(
    session: aiohttp.ClientSession, base_url: str, key: SecretText, generation_id: str
) -> GenerationRecord | None:
    """Return the record of a generation; None when the provider does not know the id (yet).

    Raises ProviderUnavailable when the provider does not answer, answers anything else than a
    record, or asks us to wait: then `retry_after_s` may say how long.
    """
    fetched = await fetch(session, base_url, PATH, key, BOUNDS, id=generation_id)
    return None if fetched.status == 404 else read_generation(fetched.body, generation_id)


def read_generation(body: bytes, generation_id: str) -> GenerationRecord:
    """Read a record. Raises ProviderUnavailable when it is none, or that of another generation."""
    members = read_members(body, PATH)
    if members.get("id", generation_id) != generation_id:
        raise ProviderUnavailable(f"GET {PATH} answered another generation")
    # Without a cost there is nothing to settle; tokens that are not named count as none.
    upstream_cost = members.get("upstream_inference_cost")
    usage = ReportedUsage(
        tokens=TokenCounts(
            prompt=_tokens(members, "native_tokens_prompt", "tokens_prompt"),
            completion=_tokens(members, "native_tokens_completion", "tokens_completion"),
            cached=_tokens(members, "native_tokens_cached"),
            reasoning=_tokens(members, "native_tokens_reasoning"),
        ),
        cost_usd=read_usd(members.get("total_cost"), PATH),
        upstream_cost_usd=None if upstream_cost is None else read_usd(upstream_cost, PATH),
        is_byok=members.get("is_byok") is True,
    )
    model = members.get("model")
    return GenerationRecord(
        generation_id=generation_id,
        usage=usage,
        is_cancelled=members.get("cancelled") is True,
        is_streamed=members.get("streamed") is True,
        created_at=_instant(members.get("created_at")),
        model=model if isinstance(model, str) else None,
    )


def _tokens(members: dict[str, Any], *names: str) -> int:
    """Return the first of these counts that is there, or 0."""
    for name in names:
        count = members.get(name)
        if count is None:
            continue
        if type(count) is not int or not 0 <= count <= MAX_TOKENS:
            raise ProviderUnavailable(f"GET {PATH} named no {name} that can be read")
        return count
    return 0


def _instant(text: object) -> datetime | None:
    """Return the instant of a text in RFC 3339, in UTC where no zone is named; None otherwise."""
    try:
        instant = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if instant is None:
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
