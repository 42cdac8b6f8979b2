"""The headers of answers, the same over gRPC and HTTP."""

import math
from typing import Final

from authz.decision import Allow, AllowUnmetered, Deny, LimitStatus
from authz.policy import ACCOUNT_HEADER

RETRY_AFTER_OUTAGE_S: Final = 1
# The client's own credential must not travel on.
REMOVED_CREDENTIALS: Final = ("authorization", "x-api-key")
# A provider gets no credential of the client and no cookie; its own key replaces `authorization`.
REMOVED_HEADERS: Final = ("x-api-key", "cookie", ACCOUNT_HEADER)
CREDENTIAL_HEADER: Final = "x-tollkeeper-credential"
SCOPES_HEADER: Final = "x-tollkeeper-scopes"
# Envoy's route reads the cluster here, where the decision names one. A header that the client sent
# under this name is replaced.
CLUSTER_HEADER: Final = "tk-cluster"
# With the provider's id behind it, the credential of an attempt at that provider. Envoy's splice
# script keeps those of the providers that the decision names, and removes these headers.
KEY_HEADER_PREFIX: Final = "tk-key-"

Header = tuple[str, str]


def limit_headers(limits: tuple[LimitStatus, ...]) -> list[Header]:
    """Return the `x-ratelimit-*` headers; reset is when the whole limit is available again."""
    return [
        header
        for status in limits
        for header in (
            (f"x-ratelimit-limit-{status.kind}", str(status.limit)),
            (f"x-ratelimit-remaining-{status.kind}", str(status.remaining)),
            (f"x-ratelimit-reset-{status.kind}", f"{status.reset_s:.3f}s"),
        )
    ]


def refusal_headers(denied: Deny) -> list[Header]:
    """Return the headers of a refusal: limits, and when the caller may try again."""
    headers = limit_headers(denied.limits)
    if denied.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(denied.retry_after_s)))))
    return headers


def identity_headers(allow: AllowUnmetered) -> list[Header]:
    """Return the headers that name the caller to a service behind the gateway."""
    return [
        (ACCOUNT_HEADER, allow.account_id),
        (CREDENTIAL_HEADER, allow.credential_id),
        (SCOPES_HEADER, " ".join(allow.scopes)),
    ]


def provider_headers(allow: Allow) -> list[Header]:
    """Return the headers that a request to a provider is given.

    They are the provider's credential and, off the default path, the cluster. Where several
    providers are asked in turn, each has its credential in a header of its own, the first too.
    """
    headers = [("authorization", f"Bearer {allow.provider_key.reveal()}")]
    upstream = allow.upstream
    if upstream is not None:
        headers.append((CLUSTER_HEADER, upstream.cluster))
        if upstream.fallbacks:
            in_turn = ((upstream.provider, allow.provider_key), *upstream.fallbacks)
            headers += [
                (f"{KEY_HEADER_PREFIX}{provider}", f"Bearer {key.reveal()}")
                for provider, key in in_turn
            ]
    return headers
