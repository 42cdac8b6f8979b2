"""Webhooks: where an account is told of events, by the account and by administrators for it."""

import json
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BeforeValidator, ConfigDict, Field

from meter.api.authentication import (
    AdministratorsOnly,
    FromAdministrator,
    FromBuyer,
    FromReader,
    WithKey,
)
from meter.api.cursors import Cursors
from meter.api.fields import (
    Body,
    Budget,
    Instant,
    Page,
    PageQuery,
    Reply,
    Usd,
    UserId,
    either,
    path_id,
)
from meter.api.problems import ProblemError
from meter.api.services import FromAccounts, FromCursors, FromOutside
from meter.audit.events import Actor
from meter.exports.webhooks.webhook import (
    DEFAULT_BUDGET_PERCENT,
    EventType,
    MessageState,
    WebhookTerms,
)
from meter.exports.webhooks.webhook_store import WebhookStore
from meter.jwts.addresses import MAX_URL_CHARS
from meter.money import parse_usd

router = APIRouter(tags=["Webhooks"])

_OWN: Final = "/api/v1/billing/webhooks"
_OF_USER: Final = "/api/v1/admin/users/{user_id}/webhooks"
_OTHERS: Final = [one.value for one in EventType if one is not EventType.BALANCE_LOW]

WebhookId = Annotated[
    str,
    path_id("webhook_id", r"wh_[0-9a-f]{32}", "there is no such webhook", f"wh_{'0f' * 16}"),
]
MessageId = Annotated[
    str,
    path_id("message_id", r"msg_[0-9a-f]{32}", "there is no such message", f"msg_{'0f' * 16}"),
]


async def _webhooks(outside: FromOutside) -> WebhookStore:
    if outside.webhooks is None:
        raise ProblemError(404, "route_not_found", "this meter has no webhooks")
    return outside.webhooks


FromWebhooks = Annotated[WebhookStore, Depends(_webhooks)]


class WebhookBody(Body):
    """A webhook to make."""

    model_config = ConfigDict(
        json_schema_extra=either(
            {"low_balance": "string", "events": {"contains": {"const": EventType.BALANCE_LOW}}},
            {"low_balance": "null", "events": {"items": {"enum": _OTHERS}}},
        )
    )

    url: str = Field(
        min_length=9,
        max_length=MAX_URL_CHARS,
        json_schema_extra={
            "pattern": r"^https://[a-z0-9]+([.-][a-z0-9]+)*(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~/-]*)?$"
        },
        description="Begins with https:// and leads to a public address",
        examples=["https://example.com/tollkeeper"],
    )
    events: list[Annotated[EventType, Field(strict=False)]] = Field(
        min_length=1, max_length=len(EventType), description="The events to be told of"
    )
    low_balance: Budget | None = Field(
        default=None, description="`balance.low` is told when the balance falls below it"
    )
    budget_percent: int = Field(
        default=DEFAULT_BUDGET_PERCENT,
        ge=1,
        le=100,
        description="`budget.reached` is told when so much of a key's budget is spent",
    )


class WebhookOfUserReply(Reply):
    """A webhook. Its secret is shown only when it is made."""

    id: str = Field(examples=[f"wh_{'0f' * 16}"])
    url: str
    events: list[EventType]
    low_balance: Usd | None = Field(validation_alias="low_balance_picos")
    budget_percent: int
    waiting: int = Field(description="Messages that it has not taken yet")
    failures: int = Field(description="Attempts since it last took a message")
    error: str | None = Field(description="Why the last attempt failed; null where it worked")
    next_attempt_at: Instant
    created_at: Instant


class NewWebhookOfUserReply(WebhookOfUserReply):
    """A new webhook with the secret by which its messages are verified."""

    secret: str = Field(examples=["whsec_..."])


class WebhookListReply(Reply):
    """All webhooks of an account."""

    data: list[WebhookOfUserReply]


class MessageReply(Reply):
    """A message to a webhook. `id` is its header `webhook-id`, and `event` its body."""

    id: str = Field(examples=[f"msg_{'0f' * 16}"])
    type: str = Field(examples=["balance.low", "webhook.test"])
    event: Annotated[dict[str, Any], BeforeValidator(json.loads)] = Field(validation_alias="body")
    state: MessageState = Field(
        description="`parked` was refused five times, and is sent again when asked for"
    )
    attempts: int
    error: str | None = Field(description="Why the last attempt failed; null where it worked")
    created_at: Instant
    attempted_at: Instant | None


class MessagePageReply(Page):
    """Messages, newest first."""

    data: list[MessageReply]


async def _make(
    account_id: str, body: WebhookBody, actor: Actor, webhooks: WebhookStore
) -> NewWebhookOfUserReply:
    low = None if body.low_balance is None else parse_usd(body.low_balance)
    terms = WebhookTerms(body.url, frozenset(body.events), low, body.budget_percent)
    webhook, secret = await webhooks.create(account_id, terms, actor)
    made = WebhookOfUserReply.model_validate(webhook)
    return NewWebhookOfUserReply.model_construct(**dict(made), secret=secret.reveal())


async def _messages(
    account_id: str, webhook_id: str, query: PageQuery, cursors: Cursors, webhooks: WebhookStore
) -> MessagePageReply:
    page, cursor = await cursors.page(
        f"webhook-messages:{webhook_id}",
        query,
        partial(webhooks.list_messages, account_id, webhook_id),
        lambda last: (last.seq,),
        int,
    )
    return MessagePageReply.of(page, cursor)


@router.get(_OWN, summary="List your webhooks", dependencies=WithKey)
async def list_own_webhooks(caller: FromReader, webhooks: FromWebhooks) -> WebhookListReply:
    """List the addresses at which your account is told of events."""
    return WebhookListReply.model_validate({"data": await webhooks.list_all(caller.account_id)})


@router.post(_OWN, status_code=201, summary="Make a webhook", dependencies=WithKey)
async def create_own_webhook(
    caller: FromBuyer, body: WebhookBody, webhooks: FromWebhooks
) -> NewWebhookOfUserReply:
    """Have events sent to an address; five webhooks at most. The secret is shown this once."""
    return await _make(caller.account_id, body, caller.actor, webhooks)


@router.get(f"{_OWN}/{{webhook_id}}", summary="Get your webhook", dependencies=WithKey)
async def get_own_webhook(
    webhook_id: WebhookId, caller: FromReader, webhooks: FromWebhooks
) -> WebhookOfUserReply:
    """Return a webhook of your account, and why its last attempt failed."""
    return WebhookOfUserReply.model_validate(await webhooks.get(caller.account_id, webhook_id))


@router.delete(
    f"{_OWN}/{{webhook_id}}", status_code=204, summary="Delete a webhook", dependencies=WithKey
)
async def delete_own_webhook(
    webhook_id: WebhookId, caller: FromBuyer, webhooks: FromWebhooks
) -> None:
    """Send nothing any more, and delete the secret and all messages."""
    await webhooks.delete(caller.account_id, webhook_id, caller.actor)


@router.post(
    f"{_OWN}/{{webhook_id}}/test", status_code=202, summary="Test a webhook", dependencies=WithKey
)
async def check_own_webhook(
    webhook_id: WebhookId, caller: FromBuyer, webhooks: FromWebhooks
) -> MessageReply:
    """Have `webhook.test` sent, once a minute at most. The messages show what became of it."""
    return MessageReply.model_validate(await webhooks.add_test(caller.account_id, webhook_id))


@router.get(
    f"{_OWN}/{{webhook_id}}/messages", summary="List a webhook's messages", dependencies=WithKey
)
async def list_own_webhook_messages(
    webhook_id: WebhookId,
    query: Annotated[PageQuery, Query()],
    caller: FromReader,
    cursors: FromCursors,
    webhooks: FromWebhooks,
) -> MessagePageReply:
    """List the messages of the last 35 days, newest first, with why one was not taken."""
    return await _messages(caller.account_id, webhook_id, query, cursors, webhooks)


@router.post(
    f"{_OWN}/{{webhook_id}}/messages/{{message_id}}/resend",
    status_code=202,
    summary="Send a message again",
    dependencies=WithKey,
)
async def resend_own_webhook_message(
    webhook_id: WebhookId, message_id: MessageId, caller: FromBuyer, webhooks: FromWebhooks
) -> MessageReply:
    """Send a message again, also one that was taken; its id and body stay."""
    message = await webhooks.resend(caller.account_id, webhook_id, message_id)
    return MessageReply.model_validate(message)


@router.get(_OF_USER, summary="List a user's webhooks", dependencies=AdministratorsOnly)
async def list_webhooks_of_user(
    user_id: UserId, accounts: FromAccounts, webhooks: FromWebhooks
) -> WebhookListReply:
    """List the addresses at which a user is told of events."""
    await accounts.get(user_id)
    return WebhookListReply.model_validate({"data": await webhooks.list_all(user_id)})


@router.post(
    _OF_USER, status_code=201, summary="Make a webhook for a user", dependencies=AdministratorsOnly
)
async def create_webhook_for_user(
    user_id: UserId, body: WebhookBody, actor: FromAdministrator, webhooks: FromWebhooks
) -> NewWebhookOfUserReply:
    """Have a user's events sent to an address. Give the secret, shown this once, to the user."""
    return await _make(user_id, body, actor, webhooks)


@router.delete(
    f"{_OF_USER}/{{webhook_id}}",
    status_code=204,
    summary="Delete a user's webhook",
    dependencies=AdministratorsOnly,
)
async def delete_webhook_of_user(
    user_id: UserId, webhook_id: WebhookId, actor: FromAdministrator, webhooks: FromWebhooks
) -> None:
    """Send nothing any more, and delete the secret and all messages."""
    await webhooks.delete(user_id, webhook_id, actor)


@router.post(
    f"{_OF_USER}/{{webhook_id}}/test",
    status_code=202,
    summary="Test a user's webhook",
    dependencies=AdministratorsOnly,
)
async def check_webhook_of_user(
    user_id: UserId, webhook_id: WebhookId, actor: FromAdministrator, webhooks: FromWebhooks
) -> MessageReply:
    """Have `webhook.test` sent, once a minute at most. The messages show what became of it."""
    return MessageReply.model_validate(await webhooks.add_test(user_id, webhook_id))


@router.get(
    f"{_OF_USER}/{{webhook_id}}/messages",
    summary="List the messages of a user's webhook",
    dependencies=AdministratorsOnly,
)
async def list_webhook_messages_of_user(
    user_id: UserId,
    webhook_id: WebhookId,
    query: Annotated[PageQuery, Query()],
    cursors: FromCursors,
    webhooks: FromWebhooks,
) -> MessagePageReply:
    """List the messages of the last 35 days, newest first, with why one was not taken."""
    return await _messages(user_id, webhook_id, query, cursors, webhooks)


@router.post(
    f"{_OF_USER}/{{webhook_id}}/messages/{{message_id}}/resend",
    status_code=202,
    summary="Send a user's message again",
    dependencies=AdministratorsOnly,
)
async def resend_webhook_message_of_user(
    user_id: UserId,
    webhook_id: WebhookId,
    message_id: MessageId,
    actor: FromAdministrator,
    webhooks: FromWebhooks,
) -> MessageReply:
    """Send a message again, also one that was taken; its id and body stay."""
    return MessageReply.model_validate(await webhooks.resend(user_id, webhook_id, message_id))
