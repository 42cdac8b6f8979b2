"""Limit rules: limits in addition to those of keys, users and plans."""

from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import BeforeValidator, ConfigDict, Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import (
    Body,
    ModelPattern,
    PerMinute,
    PerMonth,
    PlainText,
    Reply,
    ShortId,
    TokensPerMinute,
    either,
)
from meter.api.problems import ProblemError
from meter.api.services import FromLimitRules
from meter.limits.limits import AppliesTo, CountedPer, LimitRule

MAX_APPLIES_ID_CHARS: Final = 128
_LIMITS: Final = (
    "requests_per_minute",
    "tokens_per_minute",
    "requests_per_day",
    "requests_per_month",
)

router = APIRouter(prefix="/api/v1/admin/limits", tags=["Limits"], dependencies=AdministratorsOnly)

RuleId = Annotated[ShortId, Path(examples=["gpt-5-for-all"])]


# The members have the names of `AppliesTo` and `CountedPer`; their values are the API's words.
class LimitedTo(StrEnum):
    """The requests that a rule applies to."""

    EVERYONE = "everyone"
    PLAN = "plan"
    ACCOUNT = "user"
    KEY = "key"


class SharedBy(StrEnum):
    """The division of a rule: one limit for all requests, or one per user or key."""

    RULE = "rule"
    ACCOUNT = "user"
    KEY = "key"


class LimitRuleBody(Body):
    """The requests that a limit rule counts, and the most that it allows of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                either(
                    {"applies_to": {"const": "everyone"}, "applies_id": "null"},
                    {"applies_to": {"enum": ["plan", "user", "key"]}, "applies_id": "string"},
                ),
                either(*({name: "integer"} for name in _LIMITS)),
            ]
        }
    )

    applies_to: Annotated[LimitedTo, Field(strict=False)]
    applies_id: PlainText | None = Field(
        default=None,
        max_length=MAX_APPLIES_ID_CHARS,
        description="Id of the plan, user or key; null for everyone",
    )
    counted_per: Annotated[SharedBy, Field(strict=False)] = Field(
        default=SharedBy.RULE,
        description="`rule`: all requests share the limit. `user`, `key`: each has its own",
    )
    model_pattern: ModelPattern | None = Field(
        default=None, description="An id or a pattern; null: every model"
    )
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: TokensPerMinute | None = None
    requests_per_day: PerMonth | None = None
    requests_per_month: PerMonth | None = None
    is_shadow: bool = Field(default=False, description="Count and report, but refuse no request")

    def to_rule(self, rule_id: str) -> LimitRule:
        """Return the rule. Raises ProblemError for members that contradict each other."""
        if (self.applies_to is LimitedTo.EVERYONE) != (self.applies_id is None):
            message = "body.applies_id: needed, unless the rule applies to everyone"
            raise ProblemError(422, "invalid_request", message)
        if all(getattr(self, name) is None for name in _LIMITS):
            message = f"body: give one at least of {', '.join(_LIMITS)}"
            raise ProblemError(422, "invalid_request", message)
        return LimitRule(
            id=rule_id,
            applies_to=AppliesTo[self.applies_to.name],
            applies_id=self.applies_id,
            counted_per=CountedPer[self.counted_per.name],
            model_pattern=self.model_pattern,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            is_shadow=self.is_shadow,
            requests_per_day=self.requests_per_day,
            requests_per_month=self.requests_per_month,
        )


class LimitRuleReply(Reply):
    """A limit rule with its id."""

    id: str
    applies_to: Annotated[LimitedTo, BeforeValidator(lambda one: LimitedTo[one.name])]
    applies_id: str | None
    counted_per: Annotated[SharedBy, BeforeValidator(lambda one: SharedBy[one.name])]
    model_pattern: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    requests_per_day: int | None
    requests_per_month: int | None
    is_shadow: bool


class LimitRuleListReply(Reply):
    """All limit rules."""

    data: list[LimitRuleReply]


@router.get("", summary="List limit rules")
async def list_limits(limit_rules: FromLimitRules) -> LimitRuleListReply:
    """List all limit rules, in order of their ids."""
    return LimitRuleListReply.model_validate({"data": await limit_rules.list_all()})


@router.get("/{rule_id}", summary="Get a limit rule")
async def get_limit(rule_id: RuleId, limit_rules: FromLimitRules) -> LimitRuleReply:
    """Return one limit rule."""
    return LimitRuleReply.model_validate(await limit_rules.get(rule_id))


@router.put(
    "/{rule_id}",
    summary="Set a limit rule",
    responses={201: {"model": LimitRuleReply, "description": "New"}},
)
async def put_limit(
    rule_id: RuleId,
    body: LimitRuleBody,
    actor: FromAdministrator,
    limit_rules: FromLimitRules,
    response: Response,
) -> LimitRuleReply:
    """Create a limit rule (201) or replace one (200); in effect within a few seconds."""
    rule = body.to_rule(rule_id)
    if await limit_rules.put(actor, rule):
        response.status_code = 201
    return LimitRuleReply.model_validate(rule)


@router.delete("/{rule_id}", status_code=204, summary="Remove a limit rule")
async def delete_limit(
    rule_id: RuleId, actor: FromAdministrator, limit_rules: FromLimitRules
) -> None:
    """Remove a limit rule."""
    await limit_rules.remove(actor, rule_id)
