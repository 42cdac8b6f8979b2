"""What the work needs from the outside, as protocols; `meter/stores/` has the real ones.

Every method raises StoreUnavailable when Postgres does not answer or refuses: an outage is an
exception, never an empty answer. None means that the thing asked for does not exist.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from meter.accounts.account import Principal
from meter.holds.hold import HoldAnswer, HoldRequest
from meter.identity.keys.key_text import SecretText
from meter.limits.limits import LimitRule
from meter.lookups.pending import ReportedGeneration
from meter.pricing.prices import Model

if TYPE_CHECKING:
    from meter.jwts.verifying import VerifiedIdentity


class Holds(Protocol):
    """Where holds are placed before a request runs."""

    async def place(self, request: HoldRequest) -> HoldAnswer:
        """Set the estimate aside, committed, or say why not.

        The credential is judged together with the money, so a revoked key gets no hold however
        long somebody remembered it. Cancelling the call never leaves an open hold behind.
        """
        ...

    async def release(self, hold_ids: Sequence[UUID]) -> int:
        """End holds without a charge; returns how many were still open. Idempotent."""
        ...

    def release_later(self, hold_ids: Sequence[UUID]) -> None:
        """The same in the background, tried again through an outage; never raises."""
        ...


class Principals(Protocol):
    """Where the identity behind a credential is looked up.

    None for what is unknown, revoked, suspended, expired or foreign, all alike.
    """

    async def find_by_secret(self, digest: bytes) -> Principal | None:
        """Behind an API key, by the keyed digest of its text."""
        ...

    async def find_by_pass(self, pass_id: str) -> Principal | None:
        """Behind a JWT of ours, by its `jti`."""
        ...

    async def find_by_identity(self, identity: "VerifiedIdentity") -> Principal | None:
        """Behind a JWT of another issuer; makes the account at first sight where that is allowed.

        Its scopes are those of the credential; the JWT's own go before them.
        """
        ...

    async def find_by_certificate(self, name: str) -> Principal | None:
        """Behind a client certificate, by its subject alternative name."""
        ...

    async def find_issued(self, account_id: str) -> Principal | None:
        """What acts for an account that gave no credential itself: for trusted routes only."""
        ...


class CredentialUses(Protocol):
    """Where is kept when credentials were last used."""

    async def note(self, latest: Mapping[str, datetime]) -> None:
        """Write the latest use of each; an older one changes nothing."""
        ...


class LimitRules(Protocol):
    """Where limit rules are kept."""

    async def list_all(self) -> Sequence[LimitRule]:
        """All of them, in order of their ids."""
        ...


class Catalogue(Protocol):
    """The models that may be called, with the prices in force."""

    async def load_models(self) -> Mapping[str, Model]:
        """All listed models by id."""
        ...


class ProviderKeys(Protocol):
    """The sealed keys with which providers are called."""

    async def find_key(self, provider: str, owner: str) -> SecretText | None:
        """The opened key; None when none was set. Raises SealBroken under another master key."""
        ...


class ReportedGenerations(Protocol):
    """Where is kept what a provider reports about requests that may still be unsettled."""

    async def note(self, reports: Sequence[ReportedGeneration]) -> int:
        """Remember which generation answered which hold; returns how many were of use.

        Those are ignored whose hold is not in the books, or was settled at the cost reported: a
        report only says where to look, it never settles. Idempotent, because reports come twice.
        """
        ...
