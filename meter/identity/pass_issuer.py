"""Issues passes: stores the terms first, then signs the JWT.

Nobody has a pass that is stored but not signed. A pass that is signed but not stored would be
refused. So a failure between the two steps does no harm.
"""

from dataclasses import dataclass
from datetime import datetime

from meter.audit.events import Actor
from meter.clock import Clock
from meter.identity.pass_store import PassStore
from meter.identity.passes import Pass, PassOrder, draw_up
from meter.identity.principal import Principal
from meter.identity.signing_key_store import SigningKeys
from meter.jwts.passes import OwnIssuer
from meter.jwts.signing import pass_claims, sign_pass
from meter.sealing import SecretText


@dataclass(frozen=True, slots=True)
class IssuedPass:
    """A new pass with its JWT, which is not stored."""

    terms: Pass
    jwt: SecretText


class PassIssuer:
    """Issues passes."""

    def __init__(self, own: OwnIssuer, keys: SigningKeys, passes: PassStore, clock: Clock) -> None:
        self._own = own
        self._keys = keys
        self._passes = passes
        self._clock = clock

    async def issue(self, principal: Principal, order: PassOrder, actor: Actor) -> IssuedPass:
        """Issue a pass for a principal.

        Raises NotPermitted, InvalidRequest and Conflict where the principal may not have this
        pass, SealBroken where the signing key cannot be opened, StoreUnavailable in an outage.
        """
        now: datetime = self._clock.now()
        # Users need not know the administrator's credential; the audit log has it.
        is_foreign = actor.account_id not in (None, principal.account_id)
        terms = draw_up(principal, order, "administrator" if is_foreign else actor.name, now)
        key, private = await self._keys.current()
        await self._passes.add(terms, actor)
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
