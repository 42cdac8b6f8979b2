"""Issuing passes: drawn up, written down, signed, in this order.

A pass that is written down and not signed is in nobody's hands; one that is signed and not written
down would be refused. So nothing is lost wherever it stops.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from meter.audit.events import Actor
from meter.clock import Clock
from meter.identity.passes import Pass, PassOrder, draw_up
from meter.identity.principal import Principal
from meter.identity.signing_key_store import SigningKey
from meter.jwts.signing import pass_claims, sign_pass
from meter.jwts.verifying import OwnIssuer
from meter.sealing import SecretText


class Signers(Protocol):
    """Stores the key that signs now; `SigningKeys` implements it."""

    async def current(self) -> tuple[SigningKey, SecretText]:
        """The key with its private half. Raises StoreUnavailable, SealBroken."""
        ...


class Register(Protocol):
    """Where passes are written down; `meter.identity.pass_store.PassStore` does."""

    async def add(self, new: Pass, actor: Actor) -> None:
        """Write it down. Raises NotPermitted, Conflict, StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class IssuedPass:
    """A pass with its JWT, this once."""

    terms: Pass
    jwt: SecretText


class PassDesk:
    """Where passes are issued."""

    def __init__(self, own: OwnIssuer, signers: Signers, register: Register, clock: Clock) -> None:
        self._own = own
        self._signers = signers
        self._register = register
        self._clock = clock

    async def issue(self, root: Principal, order: PassOrder, actor: Actor) -> IssuedPass:
        """Issue a pass for a principal.

        Raises NotPermitted, InvalidRequest and Conflict where it may not have one, SealBroken
        where the signing key cannot be opened, StoreUnavailable.
        """
        now: datetime = self._clock.now()
        # Users need not know which credential of whose it was; the audit log does.
        is_foreign = actor.account_id not in (None, root.account_id)
        terms = draw_up(root, order, "administrator" if is_foreign else actor.name, now)
        key, private = await self._signers.current()
        await self._register.add(terms, actor)
        claims = pass_claims(
            issuer=self._own.url,
            audience=self._own.audience,
            account_id=terms.account_id,
            credential_id=terms.credential_id,
            pass_id=terms.id,
            scopes=terms.scopes,
            issued_at=terms.created_at,
            expires_at=terms.expires_at,
        )
        return IssuedPass(terms, sign_pass(private, key.kid, key.algorithm, claims))
