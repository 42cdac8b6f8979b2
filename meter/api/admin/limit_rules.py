"""Limit rules: limits beside those of keys, users and plans."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response
from pydantic import Field

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import Body, ModelPattern, PerMinute, Reply, ShortId, TokensPerMinute
from meter.api.problems import ProblemError
from meter.api.services import FromLimitRules
from meter.limits.limits import AppliesTo, CountedPer, LimitRule

MAX_APPLIES_ID_CHARS: Final = 128

router = APIRouter(prefix="/api/v1/admin/limits", tags=["Limits"], dependencies=AdministratorsOnly)

RuleId = Annotated[ShortId, Path(examples=["gpt-5-for-all"])]


class LimitRuleBody(Body):
    """What a limit rule counts, and how much of it is let in."""

    applies_to: Annotated[AppliesTo, Field(strict=False)]
    applies_id: str | None = Field(
        default=None,
        max_length=MAX_APPLIES_ID_CHARS,
        description="Id of the plan, user (`account`) or key; left out for everyone",
    )
    counted_per: Annotated[CountedPer, Field(strict=False)] = Field(
        default=CountedPer.RULE,
        description="Who shares the limit: all that it applies to (`rule`), or each account or "
        "key has it alone",
    )
    model_pattern: ModelPattern | None = Field(
        default=None, description="An id or a pattern; null: every model"
    )
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: TokensPerMinute | None = None
    is_shadow: bool = Field(default=False, description="Counted and reported, refuses nobody")

    def to_rule(self, rule_id: str) -> LimitRule:
        """The same as the books have it; raises ProblemError for what makes no sense."""
        if (self.applies_to is AppliesTo.EVERYONE) != (self.applies_id is None):
            message = "body.applies_id: name one, unless the rule applies to everyone"
            raise ProblemError(422, "invalid_request", message)
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            message = "body: give requests_per_minute, tokens_per_minute or both"
            raise ProblemError(422, "invalid_request", message)
        return LimitRule(
            id=rule_id,
            applies_to=self.applies_to,
            applies_id=self.applies_id,
            counted_per=self.counted_per,
            model_pattern=self.model_pattern,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            is_shadow=self.is_shadow,
        )


class LimitRuleReply(Reply):
    """A limit rule with its id."""

    id: str
    applies_to: AppliesTo
    applies_id: str | None
    counted_per: CountedPer
    model_pattern: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    is_shadow: bool


class LimitRuleListReply(Reply):
    """All limit rules."""

    data: list[LimitRuleReply]


@router.get("", summary="List limit rules")
async def list_limits(limit_rules: FromLimitRules) -> LimitRuleListReply:
    """All limit rules, in order of their ids."""
    rules = await limit_rules.list_all()
    return LimitRuleListReply(data=[LimitRuleReply.model_validate(rule) for rule in rules])


@router.get("/{rule_id}", summary="Get a limit rule")
async def get_limit(rule_id: RuleId, limit_rules: FromLimitRules) -> LimitRuleReply:
    """One limit rule."""
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
    """Make a limit rule (201) or change one as a whole (200). It holds within a few seconds."""
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
