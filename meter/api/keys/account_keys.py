"""What administrators and users do with keys alike; who asks decides what stands against it."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import Depends, Path, Query
from pydantic import Field

from meter.api.fields import Body, PageQuery, PlainText
from meter.api.keys.key_terms import KeyChangesBody, NewKeyBody, inherited_terms
from meter.api.keys.replies import (
    ChangedKeyReply,
    IssuedKeyReply,
    KeyDetailsReply,
    KeyPageReply,
    KeyReply,
    shown,
    shown_maker,
    shown_spending,
)
from meter.api.services import FromClock, FromCursors, FromKeys, FromKeyStore
from meter.audit.events import Actor
from meter.errors import NotFound
from meter.identity.keys.key_rights import KeyEditor, SelfService
from meter.identity.keys.key_terms import DEFAULT_OVERLAP, MAX_OVERLAP, KeyFilter, KeyStatus
from meter.identity.keys.key_text import mint
from meter.identity.principal import Credential

_KEY_ID: Final = re.compile(r"[a-z2-7]{16}")
_GLOB_CHARS: Final = frozenset("*?[")


def _key_id(key_id: Annotated[str, Path(examples=["k3vtq2m6zwxa4b7c"])]) -> str:
    """What cannot be an id is answered like an id that nobody has (rule R14)."""
    if _KEY_ID.fullmatch(key_id) is None:
        raise NotFound("the user has no such key")
    return key_id


KeyId = Annotated[str, Depends(_key_id)]


class KeyQuery(PageQuery):
    """Which keys to list."""

    status: KeyStatus | None = None
    tag: Annotated[
        PlainText | None,
        Query(max_length=128, description="`name`, or `name=value`", examples=["team=search"]),
    ] = None

    def to_filter(self) -> KeyFilter:
        """The same as the books have it."""
        if self.tag is None:
            return KeyFilter(self.status)
        name, is_with_value, value = self.tag.partition("=")
        return KeyFilter(self.status, name, value if is_with_value else None)


class RotationBody(Body):
    """How a secret is replaced."""

    overlap_s: int = Field(
        default=int(DEFAULT_OVERLAP.total_seconds()),
        ge=0,
        le=int(MAX_OVERLAP.total_seconds()),
        description="How long the present secret works beside the new one; 0 ends it at once",
    )


@dataclass(frozen=True, slots=True)
class KeyTools:
    """The services with which keys are managed."""

    keys: FromKeys
    store: FromKeyStore
    cursors: FromCursors
    clock: FromClock


FromKeyTools = Annotated[KeyTools, Depends()]


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The API keys of one account, changed by `actor` as far as `editor` may.

    `is_own` hides which administrator made a key: the account itself asks.
    """

    tools: KeyTools
    actor: Actor
    account_id: str
    editor: KeyEditor
    is_own: bool = False

    async def create(self, body: NewKeyBody) -> IssuedKeyReply:
        """Make a key; the answer is the only place where the secret ever appears."""
        now = self.tools.clock.now()
        inherited = None
        if isinstance(self.editor, SelfService):
            caller = await self.tools.store.find_credential(self.account_id, self.editor.caller_id)
            if caller is not None:
                inherited = inherited_terms(body.name, caller, self.editor.scopes)
        minted = mint()
        credential = await self.tools.keys.create(
            self.actor, self.account_id, minted, body.to_terms(now, inherited), self.editor
        )
        members = await self._changed(credential)
        return IssuedKeyReply(**members.model_dump(), key=minted.plain.reveal())

    async def list_page(self, query: KeyQuery) -> KeyPageReply:
        """One page of the keys."""
        scope = f"keys:{self.account_id}:{query.status}:{query.tag}"
        after = self.tools.cursors.open_instant(scope, query.cursor)
        rows = await self.tools.store.list_page(
            self.account_id, query.to_filter(), after, query.limit + 1
        )
        page, cursor = self.tools.cursors.next_page(
            scope, rows, query.limit, lambda last: (last.created_at.isoformat(), last.id)
        )
        now = self.tools.clock.now()
        data = [KeyReply(**shown(one, now, self._maker(one))) for one in page]
        return KeyPageReply(data=data, next_cursor=cursor)

    async def get(self, key_id: str) -> KeyDetailsReply:
        """One key with what it used of its budgets."""
        key, spending = await self.tools.store.get(self.account_id, key_id)
        members = shown(key, self.tools.clock.now(), self._maker(key))
        return KeyDetailsReply(**members, spending=[shown_spending(one) for one in spending])

    async def change(self, key_id: str, body: KeyChangesBody) -> ChangedKeyReply:
        """Change the terms that the body names."""
        now = self.tools.clock.now()
        credential = await self.tools.keys.change(
            self.actor, self.account_id, key_id, body.to_changes(now), self.editor
        )
        return await self._changed(credential)

    async def set_suspended(self, key_id: str, is_suspended: bool) -> KeyReply:
        """Suspend or resume."""
        credential = await self.tools.keys.set_suspended(
            self.actor, self.account_id, key_id, is_suspended, self.editor
        )
        return KeyReply(**shown(credential, self.tools.clock.now(), self._maker(credential)))

    async def rotate(self, key_id: str, body: RotationBody | None) -> IssuedKeyReply:
        """Add a new secret, shown this once; the present one ends after the overlap."""
        minted = mint(key_id)
        overlap = timedelta(seconds=(body or RotationBody()).overlap_s)
        credential = await self.tools.keys.rotate(
            self.actor, self.account_id, minted, overlap, self.editor
        )
        members = shown(credential, self.tools.clock.now(), self._maker(credential))
        return IssuedKeyReply(**members, warnings=[], key=minted.plain.reveal())

    async def end_previous_secret(self, key_id: str) -> None:
        """End what a rotation left alive."""
        await self.tools.keys.end_previous_secret(self.actor, self.account_id, key_id, self.editor)

    async def revoke(self, key_id: str) -> None:
        """End a key for good."""
        await self.tools.keys.revoke(self.actor, self.account_id, key_id, self.editor)

    async def _changed(self, credential: Credential) -> ChangedKeyReply:
        members = shown(credential, self.tools.clock.now(), self._maker(credential))
        return ChangedKeyReply(**members, warnings=await self._warnings(credential))

    async def _warnings(self, credential: Credential) -> list[str]:
        """Models come and go, so one that is not listed is no error, but may be a mistake."""
        exact = [one for one in credential.allowed_models or () if _GLOB_CHARS.isdisjoint(one)]
        unlisted = await self.tools.store.list_unlisted_models(exact) if exact else []
        return [f"the catalogue does not list the model '{one}' now" for one in unlisted]

    def _maker(self, credential: Credential) -> str | None:
        return shown_maker(credential.created_by) if self.is_own else None
