"""Finds the principal of the credential that a request presents, or the reason to refuse it."""

from typing import Final

from authz.decision import Deny, Reason, deny
from authz.policy import ACCOUNT_HEADER, RoutePolicy
from authz.request import AuthRequest
from authz.trace import NO_TRACE, Trace
from meter.identity.credential_resolver import CredentialResolver
from meter.identity.presented import ConflictingCredentials, find_credential
from meter.identity.principal import ByAccount, ByCertificate, Presented, Principal
from meter.jwts.terms import is_plain

MAX_ACCOUNT_CHARS: Final = 128


def read_credential(request: AuthRequest) -> str | Deny:
    """Return the one credential of a request, or the refusal for none or for different ones."""
    try:
        found = find_credential(request.values("authorization"), request.values("x-api-key"))
    except ConflictingCredentials:
        return deny(Reason.CONFLICTING_CREDENTIALS)
    return deny(Reason.MISSING_API_KEY) if found is None else found


class Authenticator:
    """Finds the principal of a request."""

    def __init__(self, resolver: CredentialResolver) -> None:
        self._resolver = resolver

    async def authenticate(
        self, request: AuthRequest, policy: RoutePolicy, trace: Trace = NO_TRACE
    ) -> Principal | Deny:
        """Return the principal, or a refusal. Raises Outage when the answer cannot be known.

        A credential takes precedence over a client certificate: in a service mesh every request
        has a certificate.
        """
        presented: Presented | None = None
        if policy.takes_account_header:
            named = request.values(ACCOUNT_HEADER)
            # Postgres takes no text with a NUL, so a name that is not plain is not looked up.
            if len(named) == 1 and len(named[0]) <= MAX_ACCOUNT_CHARS and is_plain(named[0]):
                presented = ByAccount(named[0])
        else:
            credential = read_credential(request)
            if isinstance(credential, str):
                presented = await self._resolver.resolve(credential)
            elif (
                credential.reason is Reason.MISSING_API_KEY
                and policy.trusts_certificates
                and request.certificate
            ):
                if is_plain(request.certificate):
                    presented = ByCertificate(request.certificate)
            else:
                return credential
        if presented is None:
            return deny(Reason.INVALID_API_KEY)
        trace.note_presented(presented)
        return await self._resolver.find(presented) or deny(Reason.INVALID_API_KEY)
