"""Creates, changes, rotates and revokes API keys.

Each change runs in one transaction that holds the lock of the account: read the rights, judge the
change by them, write it, and write the line of the audit log. So no right can be lost between the
judgement and the write, and no change is stored without its line.
"""

from datetime import timedelta
from typing import Final

from meter.audit.events import Actor, changes_between
from meter.errors import Conflict
from meter.identity.keys.key_rights import (
    Administrator,
    KeyAct,
    KeyChange,
    KeyEditor,
    KeyRights,
    permit,
)
from meter.identity.keys.key_store import KeyStore, LockedKeys
from meter.identity.keys.key_terms import KeyTerms, TermChanges, has_ended
from meter.identity.keys.key_text import MintedKey, Pepper
from meter.identity.principal import Credential

_ANYBODY: Final = Actor("anybody")


class KeyService:
    """Changes the API keys of accounts. Raises StoreUnavailable in an outage.

    `editor` is the party that asks, by whose rights the change is judged; `actor` names it in the
    audit log. Methods raise NotFound where the account has no such key, Conflict where the key is
    revoked, and NotPermitted where the editor may not make the change.
    """

    def __init__(self, store: KeyStore, pepper: Pepper) -> None:
        self._store = store
        self._pepper = pepper

    async def create(
        self, actor: Actor, account_id: str, key: MintedKey, terms: KeyTerms, editor: KeyEditor
    ) -> Credential:
        """Store a new key. Raises NotFound for an unknown account."""
        async with self._store.locked(account_id) as keys:
            await _require_permitted(keys, KeyChange(KeyAct.CREATE, None, terms), editor)
            maker = actor.name if actor.account_id in (None, account_id) else "administrator"
            await keys.insert(key, terms, maker)
            await keys.insert_secret(key.credential_id, self._digest(key))
            await keys.audit(actor, "created", key.credential_id, terms.audit_detail())
            return await keys.get(key.credential_id)

    async def change(
        self, actor: Actor, account_id: str, key_id: str, changes: TermChanges, editor: KeyEditor
    ) -> Credential:
        """Change some terms of a key; a new budget counts what was spent before."""
        async with self._store.locked(account_id) as keys:
            key = await keys.get_live(key_id)
            before = KeyTerms.of(key)
            after = changes.applied_to(before)
            await _require_permitted(keys, KeyChange(KeyAct.CHANGE, key, after), editor)
            differences = changes_between(before.audit_detail(), after.audit_detail())
            if not differences:
                return key
            await keys.save_terms(key_id, before, after)
            await keys.audit(actor, "changed", key_id, differences)
            return await keys.get(key_id)

    async def set_suspended(
        self, actor: Actor, account_id: str, key_id: str, is_suspended: bool, editor: KeyEditor
    ) -> Credential:
        """Suspend or resume a key; a repetition changes nothing."""
        act = KeyAct.SUSPEND if is_suspended else KeyAct.RESUME
        async with self._store.locked(account_id) as keys:
            before = await keys.get_live(key_id)
            was_by_administrator = await keys.is_suspended_by_administrator(key_id)
            change = KeyChange(act, before, KeyTerms.of(before), was_by_administrator)
            await _require_permitted(keys, change, editor)
            # Where both suspend the key, the administrator's suspension takes precedence: a user
            # must not be able to resume it.
            by_administrator = isinstance(editor, Administrator)
            is_firmer = is_suspended and by_administrator and not was_by_administrator
            if is_suspended == (before.suspended_at is not None) and not is_firmer:
                return before
            await keys.set_suspended(key_id, is_suspended)
            if is_suspended:
                detail = {"by_administrator": by_administrator}
                await keys.audit(actor, "suspended", key_id, detail)
            else:
                await keys.audit(actor, "resumed", key_id)
            return await keys.get(key_id)

    async def revoke(self, actor: Actor, account_id: str, key_id: str, editor: KeyEditor) -> None:
        """Revoke a key for ever; a repetition changes nothing."""
        async with self._store.locked(account_id) as keys:
            before = await keys.get(key_id)
            change = KeyChange(KeyAct.REVOKE, before, KeyTerms.of(before))
            await _require_permitted(keys, change, editor)
            if await keys.revoke(key_id):
                await keys.audit(actor, "revoked", key_id)

    async def rotate(
        self,
        actor: Actor,
        account_id: str,
        key: MintedKey,
        overlap: timedelta,
        editor: KeyEditor,
    ) -> Credential:
        """Add a new secret to the key with the same id; the present secret ends after `overlap`.

        A secret that an earlier rotation replaced ends at once, so at most two secrets are valid.
        """
        key_id = key.credential_id
        async with self._store.locked(account_id) as keys:
            before = await keys.get_live(key_id)
            change = KeyChange(KeyAct.ROTATE, before, KeyTerms.of(before))
            rights = await _require_permitted(keys, change, editor)
            if has_ended(before, rights.now):
                raise Conflict("the key has expired; set a later expiry first")
            overlap_s = int(overlap.total_seconds())
            await keys.end_secret(key_id, overlap_s)
            await keys.insert_secret(key_id, self._digest(key))
            await keys.audit(actor, "rotated", key_id, {"overlap_s": overlap_s})
            return await keys.get(key_id)

    async def end_previous_secret(
        self, actor: Actor, account_id: str, key_id: str, editor: KeyEditor
    ) -> None:
        """End the secret that a rotation replaced; without one, nothing changes."""
        async with self._store.locked(account_id) as keys:
            before = await keys.get_live(key_id)
            change = KeyChange(KeyAct.END_PREVIOUS_SECRET, before, KeyTerms.of(before))
            await _require_permitted(keys, change, editor)
            await keys.end_previous_secret(key_id)
            if before.previous_ends_at is not None:
                await keys.audit(actor, "previous_secret_ended", key_id)

    async def report_leak(self, plain: str) -> None:
        """Revoke the key with this secret; for an unknown or ended secret, do nothing."""
        digest = self._pepper.digest(plain)
        owner = await self._store.find_secret_owner(digest)
        if owner is None:
            return
        async with self._store.locked(owner.account_id) as keys:
            # The secret may have ended while this call waited for the lock.
            if await keys.has_secret(digest) and await keys.revoke(owner.key_id):
                await keys.audit(_ANYBODY, "leak_reported", owner.key_id)

    def _digest(self, key: MintedKey) -> bytes:
        return self._pepper.digest(key.plain.reveal())


async def _require_permitted(keys: LockedKeys, change: KeyChange, editor: KeyEditor) -> KeyRights:
    """Return the rights by which the change is permitted. Raises NotPermitted."""
    caller_id = None if isinstance(editor, Administrator) else editor.caller_id
    rights = await keys.load_rights(caller_id)
    permit(change, rights, editor)
    return rights
