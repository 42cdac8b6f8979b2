"""API keys as administrators make, change and end them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from meter.api.authentication import AdministratorsOnly, FromAdministrator
from meter.api.fields import UserId
from meter.api.keys.account_keys import AccountKeys, FromKeyTools, KeyId, KeyQuery, RotationBody
from meter.api.keys.key_terms import KeyChangesBody, NewKeyBody
from meter.api.keys.replies import (
    ChangedKeyReply,
    IssuedKeyReply,
    KeyDetailsReply,
    KeyPageReply,
    KeyReply,
)
from meter.api.services import FromAccounts
from meter.identity.keys.key_rights import Administrator

router = APIRouter(
    prefix="/api/v1/admin/users/{user_id}/api-keys",
    tags=["API keys"],
    dependencies=AdministratorsOnly,
)


async def _account_keys(
    user_id: UserId, actor: FromAdministrator, tools: FromKeyTools
) -> AccountKeys:
    return AccountKeys(tools, actor, user_id, Administrator())


FromAccountKeys = Annotated[AccountKeys, Depends(_account_keys)]


@router.post("", status_code=201, summary="Create an API key")
async def create_key(
    user_id: UserId, body: NewKeyBody, keys: FromAccountKeys, response: Response
) -> IssuedKeyReply:
    """Make a key. The answer is the only place where the secret ever appears."""
    made = await keys.create(body)
    response.headers["Location"] = f"/api/v1/admin/users/{user_id}/api-keys/{made.id}"
    return made


@router.get("", summary="List a user's API keys")
async def list_keys(
    user_id: UserId,
    query: Annotated[KeyQuery, Query()],
    keys: FromAccountKeys,
    accounts: FromAccounts,
) -> KeyPageReply:
    """The user's keys without secrets, newest first; those of a status or with a tag."""
    await accounts.get(user_id)
    return await keys.list_page(query)


@router.get("/{key_id}", summary="Get an API key")
async def get_key(key_id: KeyId, keys: FromAccountKeys) -> KeyDetailsReply:
    """One key, and what it used of its budgets in the present periods."""
    return await keys.get(key_id)


@router.patch("/{key_id}", summary="Change an API key")
async def change_key(key_id: KeyId, body: KeyChangesBody, keys: FromAccountKeys) -> ChangedKeyReply:
    """Change what is named; null takes a restriction away. 409 for a revoked key.

    A budget that is new counts what the key spent in the present period already.
    """
    return await keys.change(key_id, body)


@router.post("/{key_id}/suspend", summary="Suspend an API key")
async def suspend_key(key_id: KeyId, keys: FromAccountKeys) -> KeyReply:
    """Let no request in with this key until it is resumed. Saying it twice changes nothing."""
    return await keys.set_suspended(key_id, True)


@router.post("/{key_id}/resume", summary="Resume an API key")
async def resume_key(key_id: KeyId, keys: FromAccountKeys) -> KeyReply:
    """End a suspension. Saying it twice changes nothing."""
    return await keys.set_suspended(key_id, False)


@router.post("/{key_id}/rotate", summary="Rotate an API key")
async def rotate_key(
    key_id: KeyId, keys: FromAccountKeys, body: RotationBody | None = None
) -> IssuedKeyReply:
    """Give the key a new secret, shown this once. Its id stays.

    The present secret works on for `overlap_s`; one that was rotated away before ends at once.
    """
    return await keys.rotate(key_id, body)


@router.delete(
    "/{key_id}/previous-secret", status_code=204, summary="End the secret before the last rotation"
)
async def end_previous_secret(key_id: KeyId, keys: FromAccountKeys) -> None:
    """End it before its overlap is over. Where there is none, nothing changes."""
    await keys.end_previous_secret(key_id)


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key")
async def revoke_key(key_id: KeyId, keys: FromAccountKeys) -> None:
    """End a key for good. No request is let in with it once this has answered."""
    await keys.revoke(key_id)
