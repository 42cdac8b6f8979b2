"""The caller's key and its generations, in the shape that OpenRouter's clients read.

Money is a JSON number here, with every digit: these clients refuse text.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from meter.api.authentication import FromReader, WithKey
from meter.api.exact_json import to_json, usd_number
from meter.api.fields import Like
from meter.api.problems import ProblemError
from meter.api.services import FromGenerations, FromKeyStore, FromUsage
from meter.identity.keys.key_terms import Period, Spending
from meter.identity.principal import CredentialKind
from meter.scopes import Scope
from meter.usage.generation import Generation

MAX_ID_CHARS: Final = 200
# The number of a limit that does not exist.
UNLIMITED: Final = -1
_RESETS: Final = {
    Period.DAY: "daily",
    Period.WEEK: "weekly",
    Period.MONTH: "monthly",
    Period.TOTAL: None,
}
# OpenRouter's word for the kind of a request, by our endpoints; text of any kind is `completions`.
_API_TYPES: Final = {
    "embeddings": "embeddings",
    "rerank": "rerank",
    "images": "image",
    "speech": "tts",
    "transcriptions": "stt",
}
_CLIENT_LEFT: Final = frozenset({"DC", "DR"})

router = APIRouter(prefix="/api/v1", tags=["Your own"], dependencies=WithKey)


class RateLimitReply(BaseModel):
    """The requests that the key may send."""

    requests: int = Field(description="-1: no limit of its own")
    interval: str = Field(examples=["1m"])
    note: str


class FreeRequestsReply(BaseModel):
    """The requests to free models that a day allows; -1 where nothing limits them."""

    limit: int
    remaining: int
    used: int


class OwnKeyMembers(BaseModel):
    """The key of the caller. Amounts are US dollars, with the markup of the account."""

    label: str
    limit: float | None = Field(description="The budget that has least left; null without one")
    limit_remaining: float | None
    limit_reset: str | None = Field(examples=["daily", "weekly", "monthly"])
    include_byok_in_limit: bool
    usage: float
    usage_daily: float
    usage_weekly: float
    usage_monthly: float
    byok_usage: float = Field(description="Cost under provider keys of the account's own")
    byok_usage_daily: float
    byok_usage_weekly: float
    byok_usage_monthly: float
    is_free_tier: bool
    is_management_key: bool = Field(description="It may create keys")
    is_provisioning_key: bool
    expires_at: str | None
    rate_limit: RateLimitReply
    free_model_daily_requests: FreeRequestsReply
    allowed_data_regions: list[str]
    creator_user_id: str | None
    organization_id: str | None
    workspace_id: str | None


class OwnKeyReply(BaseModel):
    """The key that asks."""

    data: OwnKeyMembers


class GenerationMembers(BaseModel):
    """A settled request. Amounts are US dollars."""

    id: str = Field(description="The provider's id; ours of the request where it gave none")
    request_id: str | None = Field(description="The header x-request-id of the reply")
    model: str
    provider_name: str | None = Field(examples=["openrouter"])
    api_type: str | None
    created_at: str
    total_cost: float = Field(description="The charge, with the markup of the account")
    usage: float = Field(description="The same")
    charge: float = Field(description="The same")
    provider_cost: float = Field(description="The provider's cost, before the markup")
    upstream_inference_cost: float | None = Field(
        description="The cost at the provider under a key of the account's own"
    )
    is_byok: bool
    cost_source: str = Field(
        description="provider: it named the cost; catalogue: its prices; estimate: ours"
    )
    settled_by: str = Field(
        description="stream or file: an access log; lookup: the provider's record; policy: ours"
    )
    tokens_prompt: int
    tokens_completion: int
    native_tokens_prompt: int
    native_tokens_completion: int
    native_tokens_reasoning: int
    native_tokens_cached: int
    latency: int | None = Field(description="Milliseconds to the first byte")
    generation_time: int = Field(description="Milliseconds")
    streamed: bool
    cancelled: bool = Field(description="The client left before the end")
    data_region: str
    origin: str


class GenerationReply(BaseModel):
    """One settled request; members of OpenRouter that nobody knows here are null."""

    data: GenerationMembers


@router.get("/key", summary="Get your key", responses={200: {"model": OwnKeyReply}})
async def get_own_key_facts(caller: FromReader, keys: FromKeyStore, usage: FromUsage) -> Response:
    """Return the key of this request with its budget and its usage, as OpenRouter does.

    Also at `/v1/key` and `/api/v1/llm/key`.
    """
    principal = caller.principal
    credential = await keys.find_credential(caller.account_id, caller.credential_id)
    if credential is None:
        raise ProblemError(404, "not_found", "the credential was deleted a moment ago")
    tightest = None
    if credential.kind is CredentialKind.KEY:
        _, spending = await keys.get(caller.account_id, credential.id)
        tightest = min(spending, key=lambda one: one.left_picos, default=None)
    spent = await usage.find_spending(
        caller.account_id, credential.id, has_own_keys=principal.has_own_keys
    )
    per_minute = principal.key_rates.requests_per_minute
    may_make_keys = Scope.KEYS_WRITE in principal.scopes
    members: dict[str, Any] = {
        "label": credential.name,
        **_limit_members(tightest),
        "include_byok_in_limit": False,
        "usage": usd_number(spent.charged.total_picos),
        "usage_daily": usd_number(spent.charged.day_picos),
        "usage_weekly": usd_number(spent.charged.week_picos),
        "usage_monthly": usd_number(spent.charged.month_picos),
        "byok_usage": usd_number(spent.own_keys.total_picos),
        "byok_usage_daily": usd_number(spent.own_keys.day_picos),
        "byok_usage_weekly": usd_number(spent.own_keys.week_picos),
        "byok_usage_monthly": usd_number(spent.own_keys.month_picos),
        "is_free_tier": False,
        "is_management_key": may_make_keys,
        "is_provisioning_key": may_make_keys,
        "expires_at": None if principal.ends_at is None else principal.ends_at.isoformat(),
        "rate_limit": {
            "requests": UNLIMITED if per_minute is None else per_minute,
            "interval": "1m",
            "note": "of this key; limits of the account and of models may be lower",
        },
        "free_model_daily_requests": {"limit": UNLIMITED, "remaining": UNLIMITED, "used": 0},
        "allowed_data_regions": ["global"],
        "creator_user_id": caller.account_id,
        "organization_id": None,
        "workspace_id": None,
    }
    return Response(to_json({"data": members}), media_type="application/json")


@router.get("/generation", summary="Get a request", responses={200: {"model": GenerationReply}})
async def get_generation(
    caller: FromReader,
    generations: FromGenerations,
    asked_id: Annotated[
        str,
        Like(r"[!-~]+", "an id has visible ASCII characters only"),
        Query(
            alias="id",
            min_length=1,
            max_length=MAX_ID_CHARS,
            description="The id of the reply, or its header x-request-id",
            examples=["gen-1764500000-abc"],
        ),
    ],
) -> Response:
    """Return usage and charge of a request of your account, as soon as it is settled.

    Also at `/v1/generation` and `/api/v1/llm/generation`. An id that does not begin with its time,
    as those of OpenRouter do, is looked for among the latest requests of the last day.
    """
    found = await generations.find(caller.account_id, asked_id)
    if found is None:
        raise ProblemError(
            404,
            "generation_not_found",
            "no settled request of your account has this id; a request is settled moments after "
            "its end, so ask again, and later where the provider did not tell its usage",
        )
    members = _generation_members(found, asked_id)
    return Response(to_json({"data": members}), media_type="application/json")


def _limit_members(tightest: Spending | None) -> dict[str, Any]:
    if tightest is None:
        return {"limit": None, "limit_remaining": None, "limit_reset": None}
    return {
        "limit": usd_number(tightest.limit_picos),
        "limit_remaining": usd_number(max(0, tightest.left_picos)),
        "limit_reset": _RESETS[tightest.period],
    }


def _generation_members(found: Generation, asked_id: str) -> dict[str, Any]:
    own_key_cost = found.own_key_cost_picos
    charge = usd_number(found.charge_picos)
    return {
        "id": found.generation_id or found.request_id or asked_id,
        "request_id": found.request_id,
        "model": found.model_id,
        "provider_name": found.provider or None,
        "api_type": _API_TYPES.get(found.endpoint, "completions"),
        "created_at": found.started_at.isoformat(),
        "total_cost": charge,
        "usage": charge,
        "charge": charge,
        "provider_cost": usd_number(found.provider_cost_picos),
        "upstream_inference_cost": None if own_key_cost is None else usd_number(own_key_cost),
        "is_byok": own_key_cost is not None,
        "cost_source": found.price_source,
        "settled_by": found.source,
        "tokens_prompt": found.tokens.prompt,
        "tokens_completion": found.tokens.completion,
        "native_tokens_prompt": found.tokens.prompt,
        "native_tokens_completion": found.tokens.completion,
        "native_tokens_reasoning": found.tokens.reasoning,
        "native_tokens_cached": found.tokens.cached,
        "latency": found.time_to_first_byte_ms,
        "generation_time": found.latency_ms,
        "streamed": found.is_streaming,
        "cancelled": not _CLIENT_LEFT.isdisjoint(found.response_flags.split(",")),
        "data_region": "global",
        "origin": "",
        **dict.fromkeys(_UNKNOWN),
    }


# Members of OpenRouter's schema that must be there, and that nobody knows here.
_UNKNOWN: Final = (
    "app_id",
    "cache_discount",
    "external_user",
    "finish_reason",
    "http_referer",
    "moderation_latency",
    "native_finish_reason",
    "native_tokens_completion_images",
    "num_fetches",
    "num_input_audio_prompt",
    "num_media_completion",
    "num_media_prompt",
    "num_search_results",
    "preset_id",
    "provider_responses",
    "router",
    "service_tier",
    "session_id",
    "upstream_id",
    "user_agent",
    "web_search_engine",
    "workspace_id",
)
