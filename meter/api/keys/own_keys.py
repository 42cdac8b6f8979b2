"""The caller's own keys: made, changed and ended within what an administrator allows."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from meter.api.authentication import Caller, FromKeyKeeper, FromReader, WithKey
from meter.api.keys.account_keys import (
    AccountKeys,
    FromKeyTools,
    KeyId,
    KeyQuery,
    KeyTools,
    RotationBody,
)
from meter.api.keys.key_terms import KeyChangesBody, NewKeyBody
from meter.api.keys.replies import (
    ChangedKeyReply,
    IssuedKeyReply,
    KeyDetailsReply,
    KeyPageReply,
    KeyReply,
)
from meter.identity.keys.key_rights import SelfService

router = APIRouter(prefix="/api/v1/keys", tags=["Your own keys"], dependencies=WithKey)


async def _reader_keys(caller: FromReader, tools: FromKeyTools) -> AccountKeys:
    return _account_keys(caller, tools)


async def _keeper_keys(caller: FromKeyKeeper, tools: FromKeyTools) -> AccountKeys:
    return _account_keys(caller, tools)


def _account_keys(caller: Caller, tools: KeyTools) -> AccountKeys:
    principal = caller.principal
    editor = SelfService(
        principal.credential_id, principal.scopes, principal.pass_id, principal.ends_at
    )
    return AccountKeys(tools, caller.actor, principal.account_id, editor, is_own=True)


# The same service; the first needs the scope usage:read, the second keys:write.
ReaderKeys = Annotated[AccountKeys, Depends(_reader_keys)]
KeeperKeys = Annotated[AccountKeys, Depends(_keeper_keys)]


@router.get("", summary="List your API keys")
async def list_own_keys(query: Annotated[KeyQuery, Query()], keys: ReaderKeys) -> KeyPageReply:
    """Your account's keys without secrets."""
    return await keys.list_page(query)


@router.get("/{key_id}", summary="Get one of your API keys")
async def get_own_key(key_id: KeyId, keys: ReaderKeys) -> KeyDetailsReply:
    """One key, and what it used of its budgets in the present periods."""
    return await keys.get(key_id)


@router.post("", status_code=201, summary="Create an API key of your own")
async def create_own_key(body: NewKeyBody, keys: KeeperKeys, response: Response) -> IssuedKeyReply:
    """Make a key that may do no more than the credential that makes it.

    Models, addresses and expiry that are left out are those of the caller.
    """
    made = await keys.create(body)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.patch("/{key_id}", summary="Change one of your API keys")
async def change_own_key(key_id: KeyId, body: KeyChangesBody, keys: KeeperKeys) -> ChangedKeyReply:
    """Narrow any key; widen another one as far as you could have made it."""
    return await keys.change(key_id, body)


@router.post("/{key_id}/suspend", summary="Suspend one of your API keys")
async def suspend_own_key(key_id: KeyId, keys: KeeperKeys) -> KeyReply:
    """Let no request in with this key until it is resumed."""
    return await keys.set_suspended(key_id, True)


@router.post("/{key_id}/resume", summary="Resume one of your API keys")
async def resume_own_key(key_id: KeyId, keys: KeeperKeys) -> KeyReply:
    """End a suspension that was not an administrator's."""
    return await keys.set_suspended(key_id, False)


@router.post("/{key_id}/rotate", summary="Rotate one of your API keys")
async def rotate_own_key(
    key_id: KeyId, keys: KeeperKeys, body: RotationBody | None = None
) -> IssuedKeyReply:
    """Give the key a new secret, shown this once; the present one works on for `overlap_s`.

    A key may rotate itself, and others that it could have made.
    """
    return await keys.rotate(key_id, body)


@router.delete(
    "/{key_id}/previous-secret",
    status_code=204,
    summary="End the secret before your key's last rotation",
)
async def end_own_previous_secret(key_id: KeyId, keys: KeeperKeys) -> None:
    """End it before its overlap is over. Where there is none, nothing changes."""
    await keys.end_previous_secret(key_id)


@router.delete("/{key_id}", status_code=204, summary="Revoke one of your API keys")
async def revoke_own_key(key_id: KeyId, keys: KeeperKeys) -> None:
    """End a key for good, also the one that says so."""
    await keys.revoke(key_id)
