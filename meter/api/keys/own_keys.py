"""The API keys of the caller's account, which it manages within the limits of its plan."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from meter.api.authentication import Caller, WithKey, caller_with
from meter.api.keys.account_keys import (
    AccountKeys,
    FromKeyTools,
    KeyId,
    KeyQuery,
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
from meter.scopes import Scope

router = APIRouter(prefix="/api/v1/keys", tags=["Your own keys"], dependencies=WithKey)


def _keys_with(scope: Scope) -> Any:
    async def account_keys(
        caller: Annotated[Caller, Depends(caller_with(scope))], tools: FromKeyTools
    ) -> AccountKeys:
        principal = caller.principal
        editor = SelfService(
            principal.credential_id, principal.scopes, principal.pass_id, principal.ends_at
        )
        return AccountKeys(tools, caller.actor, principal.account_id, editor, is_own=True)

    return Depends(account_keys)


ReaderKeys = Annotated[AccountKeys, _keys_with(Scope.USAGE_READ)]
KeeperKeys = Annotated[AccountKeys, _keys_with(Scope.KEYS_WRITE)]


@router.get("", summary="List your API keys")
async def list_own_keys(query: Annotated[KeyQuery, Query()], keys: ReaderKeys) -> KeyPageReply:
    """List the keys of your account without their secrets, newest first."""
    return await keys.list_page(query)


@router.get("/{key_id}", summary="Get one of your API keys")
async def get_own_key(key_id: KeyId, keys: ReaderKeys) -> KeyDetailsReply:
    """Return one key, with the use of its budgets in the present periods."""
    return await keys.get(key_id)


@router.post("", status_code=201, summary="Create an API key of your own")
async def create_own_key(body: NewKeyBody, keys: KeeperKeys, response: Response) -> IssuedKeyReply:
    """Create a key with no more rights than the credential that creates it.

    Models, addresses and expiry that are left out are those of this credential. The secret is in
    this reply only.
    """
    made = await keys.create(body)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.patch("/{key_id}", summary="Change one of your API keys")
async def change_own_key(key_id: KeyId, body: KeyChangesBody, keys: KeeperKeys) -> ChangedKeyReply:
    """Change the terms that the body names.

    You may restrict any key of the account, and extend a key other than your own as far as you
    could create it.
    """
    return await keys.change(key_id, body)


@router.post("/{key_id}/suspend", summary="Suspend one of your API keys")
async def suspend_own_key(key_id: KeyId, keys: KeeperKeys) -> KeyReply:
    """Refuse all requests with this key until it is resumed. May be repeated."""
    return await keys.set_suspended(key_id, True)


@router.post("/{key_id}/resume", summary="Resume one of your API keys")
async def resume_own_key(key_id: KeyId, keys: KeeperKeys) -> KeyReply:
    """End the suspension of a key, unless an administrator suspended it. May be repeated."""
    return await keys.set_suspended(key_id, False)


@router.post("/{key_id}/rotate", summary="Rotate one of your API keys")
async def rotate_own_key(
    key_id: KeyId, keys: KeeperKeys, body: RotationBody | None = None
) -> IssuedKeyReply:
    """Give the key a new secret, which is in this reply only. Its id stays the same.

    The present secret stays valid for `overlap_s`. A key may rotate itself, and keys that it could
    have created.
    """
    return await keys.rotate(key_id, body)


@router.delete(
    "/{key_id}/previous-secret",
    status_code=204,
    summary="End the replaced secret of one of your API keys",
)
async def end_own_previous_secret(key_id: KeyId, keys: KeeperKeys) -> None:
    """End the replaced secret before its overlap is over; without one, nothing changes."""
    await keys.end_previous_secret(key_id)


@router.delete("/{key_id}", status_code=204, summary="Revoke one of your API keys")
async def revoke_own_key(key_id: KeyId, keys: KeeperKeys) -> None:
    """Revoke a key for good; it may be the key of this request."""
    await keys.revoke(key_id)
