"""API keys of users, as administrators create, change and revoke them."""

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
    """Create a key. The secret is in this reply only."""
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
    """List the user's keys without their secrets, newest first; all, or by status or tag."""
    await accounts.get(user_id)
    return await keys.list_page(query)


@router.get("/{key_id}", summary="Get an API key")
async def get_key(key_id: KeyId, keys: FromAccountKeys) -> KeyDetailsReply:
    """Return one key, with the use of its budgets in the present periods."""
    return await keys.get(key_id)


@router.patch("/{key_id}", summary="Change an API key")
async def change_key(key_id: KeyId, body: KeyChangesBody, keys: FromAccountKeys) -> ChangedKeyReply:
    """Change the terms that the body names; null removes a restriction. 409 for a revoked key.

    A new budget includes the amount that the key already spent in the present period.
    """
    return await keys.change(key_id, body)


@router.post("/{key_id}/suspend", summary="Suspend an API key")
async def suspend_key(key_id: KeyId, keys: FromAccountKeys) -> KeyReply:
    """Refuse all requests with this key until it is resumed. May be repeated."""
    return await keys.set_suspended(key_id, True)


@router.post("/{key_id}/resume", summary="Resume an API key")
async def resume_key(key_id: KeyId, keys: FromAccountKeys) -> KeyReply:
    """End the suspension of a key. May be repeated."""
    return await keys.set_suspended(key_id, False)


@router.post("/{key_id}/rotate", summary="Rotate an API key")
async def rotate_key(
    key_id: KeyId, keys: FromAccountKeys, body: RotationBody | None = None
) -> IssuedKeyReply:
    """Give the key a new secret, which is in this reply only. Its id stays the same.

    The present secret stays valid for `overlap_s`. A secret that an earlier rotation replaced ends
    at once.
    """
    return await keys.rotate(key_id, body)


@router.delete(
    "/{key_id}/previous-secret", status_code=204, summary="End the replaced secret of an API key"
)
async def end_previous_secret(key_id: KeyId, keys: FromAccountKeys) -> None:
    """End the replaced secret before its overlap is over; without one, nothing changes."""
    await keys.end_previous_secret(key_id)


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key")
async def revoke_key(key_id: KeyId, keys: FromAccountKeys) -> None:
    """Revoke a key for good. Every later request with it is refused. May be repeated."""
    await keys.revoke(key_id)
