"""The management of API keys, the same for administrators and users, whose rights differ."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Query
from pydantic import Field

from meter.api.cursors import instant_and_id
from meter.api.fields import CREDENTIAL_ID, Body, PageQuery, PlainText, path_id
from meter.api.keys.key_terms import KeyChangesBody, NewKeyBody, inherited_terms
from meter.api.keys.replies import (
    ChangedKeyReply,
    IssuedKeyReply,
    KeyDetailsReply,
    KeyPageReply,
    KeyReply,
    shown,
)
from meter.api.services import FromClock, FromCursors, FromKeys, FromKeyStore
from meter.audit.events import Actor
from meter.identity.keys.key_rights import KeyEditor, SelfService
from meter.identity.keys.key_terms import DEFAULT_OVERLAP, MAX_OVERLAP, KeyFilter, KeyStatus
from meter.identity.keys.key_text import mint
from meter.identity.principal import Credential

_GLOB_CHARS: Final = frozenset("*?[")
R = TypeVar("R", bound=KeyReply)


KeyId = Annotated[
    str, path_id("key_id", CREDENTIAL_ID, "the user has no such key", "k3vtq2m6zwxa4b7c")
]


class KeyQuery(PageQuery):
    """The keys to list."""

    status: KeyStatus | None = None
    tag: Annotated[
        PlainText | None,
        Query(
            max_length=128,
            description="Only keys with this tag: `name`, or `name=value`",
            examples=["team=search"],
        ),
    ] = None

    def to_filter(self) -> KeyFilter:
        """Return the filter for the store."""
        if self.tag is None:
            return KeyFilter(self.status)
        name, is_with_value, value = self.tag.partition("=")
        return KeyFilter(self.status, name, value if is_with_value else None)


class RotationBody(Body):
    """The manner in which a secret is replaced."""

    overlap_s: int = Field(
        default=int(DEFAULT_OVERLAP.total_seconds()),
        ge=0,
        le=int(MAX_OVERLAP.total_seconds()),
        description="Seconds for which the present secret stays valid; 0 ends it at once",
    )


@dataclass(frozen=True, slots=True)
class KeyTools:
    """The services that manage keys."""

    keys: FromKeys
    store: FromKeyStore
    cursors: FromCursors
    clock: FromClock


FromKeyTools = Annotated[KeyTools, Depends()]


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The API keys of one account, which `actor` changes within the rights of `editor`.

    `is_own` means that the account itself asks: replies do not name the administrator who made a
    key.
    """

    tools: KeyTools
    actor: Actor
    account_id: str
    editor: KeyEditor
    is_own: bool = False

    async def create(self, body: NewKeyBody) -> IssuedKeyReply:
        """Make a key. Only this reply contains the secret."""
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
        warnings = await self._warnings(credential)
        return self._reply(IssuedKeyReply, credential, warnings=warnings, key=minted.plain.reveal())

    async def list_page(self, query: KeyQuery) -> KeyPageReply:
        """Return one page of the keys, newest first."""
        scope = f"keys:{self.account_id}:{query.status}:{query.tag}"
        page, cursor = await self.tools.cursors.page(
            scope,
            query,
            partial(self.tools.store.list_page, self.account_id, query.to_filter()),
            lambda last: (last.created_at.isoformat(), last.id),
            instant_and_id,
        )
        data = [self._reply(KeyReply, one) for one in page]
        return KeyPageReply(data=data, next_cursor=cursor)

    async def get(self, key_id: str) -> KeyDetailsReply:
        """Return one key, with the use of its budgets."""
        key, spending = await self.tools.store.get(self.account_id, key_id)
        return self._reply(KeyDetailsReply, key, spending=spending)

    async def change(self, key_id: str, body: KeyChangesBody) -> ChangedKeyReply:
        """Change the terms that the body names."""
        now = self.tools.clock.now()
        credential = await self.tools.keys.change(
            self.actor, self.account_id, key_id, body.to_changes(now), self.editor
        )
        return self._reply(ChangedKeyReply, credential, warnings=await self._warnings(credential))

    async def set_suspended(self, key_id: str, is_suspended: bool) -> KeyReply:
        """Suspend or resume a key."""
        credential = await self.tools.keys.set_suspended(
            self.actor, self.account_id, key_id, is_suspended, self.editor
        )
        return self._reply(KeyReply, credential)

    async def rotate(self, key_id: str, body: RotationBody | None) -> IssuedKeyReply:
        """Add a new secret, which is in this reply only; the present one ends after the overlap."""
        minted = mint(key_id)
        overlap = timedelta(seconds=(body or RotationBody()).overlap_s)
        credential = await self.tools.keys.rotate(
            self.actor, self.account_id, minted, overlap, self.editor
        )
        return self._reply(IssuedKeyReply, credential, warnings=[], key=minted.plain.reveal())

    async def end_previous_secret(self, key_id: str) -> None:
        """End the secret that the last rotation replaced."""
        await self.tools.keys.end_previous_secret(self.actor, self.account_id, key_id, self.editor)

    async def revoke(self, key_id: str) -> None:
        """Revoke a key for good."""
        await self.tools.keys.revoke(self.actor, self.account_id, key_id, self.editor)

    async def _warnings(self, credential: Credential) -> list[str]:
        """Return warnings of models that the catalogue does not list, which may be a mistake."""
        exact = [one for one in credential.allowed_models or () if _GLOB_CHARS.isdisjoint(one)]
        unlisted = await self.tools.store.list_unlisted_models(exact) if exact else []
        return [f"the catalogue does not list the model '{one}' now" for one in unlisted]

    def _reply(self, kind: type[R], credential: Credential, **more: Any) -> R:
        members = shown(credential, self.tools.clock.now(), self.is_own)
        return kind.model_validate({**members, **more})
