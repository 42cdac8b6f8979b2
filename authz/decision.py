"""Decisions: Allow, or Deny for a reason from a closed list. An outage is no decision.

The list gives every reason its status and its public sentence. Clients see the error in the shape
of their API, so that their SDKs raise the class that their users expect. SDKs try 408, 409, 429 and
5xx again on their own, so a refusal that waiting does not change never has one of these statuses.
"""

import json
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from meter.limits.limits import LimitKind
from meter.sealing import SecretText
from meter.values import light_value

MAX_ECHO_CHARS: Final = 100
ELSEWHERE: Final = "elsewhere;"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """The status, code and type of a refusal or outage; `sentence` is the usual message."""

    code: str
    status: int
    type: str
    sentence: str


class ErrorShape(Enum):
    """The API whose clients read the body of an error."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OPENROUTER = "openrouter"


# Anthropic's name of a type, by our code or by our type, where the two names differ.
_ANTHROPIC_TYPES: Final = {
    "request_too_large": "request_too_large",
    "overloaded": "overloaded_error",
    "insufficient_quota": "billing_error",
    "service_unavailable": "api_error",
}


class Reason(Enum):
    """The closed list of reasons for refusing a request."""

    MISSING_API_KEY = ErrorKind(
        "missing_api_key",
        401,
        "authentication_error",
        "No API key was given. Send it as 'Authorization: Bearer <key>' or as 'x-api-key'.",
    )
    # One answer for unknown, revoked, expired and foreign keys: it must not tell which exist.
    INVALID_API_KEY = ErrorKind(
        "invalid_api_key",
        401,
        "authentication_error",
        "The API key, pass or JWT is not valid. Check that it is complete and has not been revoked "
        "or expired.",
    )
    # Not our word for a bad credential of ours: it is about the account's key of a provider.
    OWN_KEY_REJECTED = ErrorKind(
        "own_key_rejected",
        401,
        "authentication_error",
        "The provider does not accept the key that the account has stored for it.",
    )
    CONFLICTING_CREDENTIALS = ErrorKind(
        "conflicting_credentials",
        400,
        "invalid_request_error",
        "More than one credential was given. Send exactly one API key, pass or JWT.",
    )
    ACCOUNT_SUSPENDED = ErrorKind(
        "account_suspended",
        403,
        "permission_error",
        "The account is suspended. Its administrator can resume it.",
    )
    ADDRESS_NOT_ALLOWED = ErrorKind(
        "address_not_allowed",
        403,
        "permission_error",
        "This credential may not be used from this address.",
    )
    INSUFFICIENT_SCOPE = ErrorKind(
        "insufficient_scope", 403, "permission_error", "The credential lacks the scope for this."
    )
    BODY_NOT_SHOWN = ErrorKind(
        "body_not_shown",
        403,
        "permission_error",
        "Requests are metered here, and the proxy does not show their bodies, so their cost cannot "
        "be bounded. Its operator can turn metering off for this route, or put Envoy in front.",
    )
    MODEL_NOT_ALLOWED = ErrorKind(
        "model_not_allowed", 403, "permission_error", "The credential may not use the model."
    )
    NO_OWN_KEY = ErrorKind(
        "no_own_key",
        403,
        "permission_error",
        "The account uses provider keys of its own only, and has none for this model.",
    )
    INSUFFICIENT_CREDITS = ErrorKind(
        "insufficient_credits", 402, "insufficient_quota", "The account has too little credit."
    )
    BUDGET_EXCEEDED = ErrorKind(
        "budget_exceeded", 402, "insufficient_quota", "The budget of the credential is used up."
    )
    MODEL_NOT_FOUND = ErrorKind(
        "model_not_found", 404, "not_found_error", "The model does not exist."
    )
    ROUTE_NOT_FOUND = ErrorKind(
        "route_not_found", 404, "not_found_error", "There is nothing at this method and path."
    )
    QUERY_NOT_ALLOWED = ErrorKind(
        "query_not_allowed",
        400,
        "invalid_request_error",
        "This path takes no query string. Put parameters into the JSON body.",
    )
    INVALID_CHECK = ErrorKind(
        "invalid_request", 400, "invalid_request_error", "The request could not be read."
    )
    INVALID_JSON = ErrorKind(
        "invalid_json", 400, "invalid_request_error", "The body is not valid JSON."
    )
    DUPLICATE_KEY = ErrorKind(
        "duplicate_key",
        400,
        "invalid_request_error",
        "A JSON object in the body names a member twice. Name each member once.",
    )
    INVALID_VALUE = ErrorKind(
        "invalid_value", 400, "invalid_request_error", "A parameter has a value that is not valid."
    )
    COST_UNBOUNDED = ErrorKind(
        "cost_unbounded",
        400,
        "invalid_request_error",
        "The cost of this request cannot be bounded before it runs.",
    )
    REQUEST_TOO_LARGE = ErrorKind(
        "request_too_large", 413, "invalid_request_error", "The body is too large."
    )
    UNSUPPORTED_CONTENT_TYPE = ErrorKind(
        "unsupported_content_type",
        415,
        "invalid_request_error",
        "The body must be sent as 'content-type: application/json' in UTF-8.",
    )
    UNSUPPORTED_CONTENT_ENCODING = ErrorKind(
        "unsupported_content_encoding",
        415,
        "invalid_request_error",
        "The body must be sent without a content encoding.",
    )
    RATE_LIMIT_EXCEEDED = ErrorKind(
        "rate_limit_exceeded",
        429,
        "rate_limit_error",
        "Too many requests in a short time. Wait as long as 'retry-after' says.",
    )
    TOO_MANY_CONCURRENT = ErrorKind(
        "too_many_concurrent_requests",
        429,
        "rate_limit_error",
        "Too many requests are running at once. Try again when one has finished.",
    )


class OutageKind(Enum):
    """The reasons for an outage; a request never passes without a decision."""

    UNAVAILABLE = ErrorKind(
        "unavailable",
        503,
        "service_unavailable",
        "The service cannot decide about requests at the moment. Try again shortly.",
    )
    OVERLOADED = ErrorKind(
        "overloaded",
        503,
        "service_unavailable",
        "More requests arrive than can be decided in time. Wait as long as 'retry-after' says, and "
        "send fewer at once.",
    )
    PROVIDER_UNAVAILABLE = ErrorKind(
        "provider_unavailable",
        503,
        "service_unavailable",
        "The model provider cannot be reached at the moment. Try again later.",
    )


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """The state of the tightest limit of one kind that applies to a principal."""

    kind: LimitKind
    limit: int
    remaining: int
    reset_s: float


class Edit(NamedTuple):
    """Replace `remove` bytes of the body at byte `offset` by `insert`."""

    offset: int
    remove: int
    insert: str

    def to_text(self) -> str:
        """Return `offset:remove:size:insert;`, which Envoy's script reads without a JSON parser.

        The size is that of `insert`, in bytes. The semicolon keeps blanks before it: HTTP removes
        them at the end of a header.
        """
        size_bytes = len(self.insert.encode())
        return f"{self.offset}:{self.remove}:{size_bytes}:{self.insert};"


@light_value
class Upstream:
    """The way of a request that does not take the default path.

    The default path is OpenRouter with our key. `cluster` is Envoy's cluster, `provider` the one
    that is asked first, with the key of the decision. `is_own_key` says that the key belongs to
    the account. `fallbacks` are the providers that Envoy asks afterwards, each with its key.
    """

    cluster: str
    provider: str
    is_own_key: bool = False
    fallbacks: tuple[tuple[str, SecretText], ...] = ()

    @property
    def fallback_names(self) -> str:
        """Return the ids of the fallbacks, with blanks between."""
        return " ".join(provider for provider, _ in self.fallbacks)


@light_value
class Allow:
    """The request may go to the provider: under this hold, with this key, after these edits."""

    hold_id: UUID
    account_id: str
    credential_id: str
    model_id: str
    endpoint: str
    provider_key: SecretText
    edits: tuple[Edit, ...] = ()
    limits: tuple[LimitStatus, ...] = ()
    is_streaming: bool = False
    upstream: Upstream | None = None

    @property
    def edits_text(self) -> str:
        """Return the edits as Envoy's script reads them.

        Off the default path a word stands before them. An Envoy whose script cannot send a request
        elsewhere cannot read it either and refuses the request; otherwise it would send the
        credential of one provider to another.
        """
        text = "".join(edit.to_text() for edit in self.edits)
        return text if self.upstream is None else f"{ELSEWHERE}{text}"


@light_value
class AllowUnmetered:
    """The request may go on to our own service: nothing is held, no provider key is given out."""

    account_id: str
    credential_id: str
    scopes: tuple[str, ...]
    limits: tuple[LimitStatus, ...] = ()


@light_value
class Deny:
    """The request is refused; `message` is public, `param` the member of the body at fault."""

    reason: Reason
    message: str
    param: str | None = None
    limits: tuple[LimitStatus, ...] = ()
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class NeedsWholeBody:
    """A metered request may be read whole: nothing is held, and nothing may reach a provider yet.

    The answer to a check that saw the beginning of a body. A second check sees all of it.
    """


Decision = Allow | AllowUnmetered | NeedsWholeBody | Deny


class Refused(Exception):
    """Raised by the rules of a phase, and turned into the value `deny` where the phase ends."""

    def __init__(self, deny: Deny) -> None:
        super().__init__(deny.reason.value.code)
        self.deny = deny


def deny(
    reason: Reason,
    message: str | None = None,
    param: str | None = None,
    limits: tuple[LimitStatus, ...] = (),
    retry_after_s: float | None = None,
) -> Deny:
    """Return a refusal, with the reason's usual sentence unless a message is given."""
    text = reason.value.sentence if message is None else message
    return Deny(reason, text, param, limits, retry_after_s)


def echo(text: str) -> str:
    """Return text that a client sent, cut so that a message can repeat it."""
    return text if len(text) <= MAX_ECHO_CHARS else text[:MAX_ECHO_CHARS] + "..."


@lru_cache(maxsize=256)
def error_body(
    kind: ErrorKind, message: str, param: str | None, shape: ErrorShape = ErrorShape.OPENAI
) -> str:
    """Return the JSON of an error in the form that the clients of an endpoint expect."""
    if shape is ErrorShape.OPENROUTER:
        # Its clients validate that the code is a number, and reject the whole answer otherwise.
        told = {"error_code": kind.code, "error_type": kind.type, "param": param}
        numbered = {"code": kind.status, "message": message, "metadata": told}
        return json.dumps({"error": numbered}, ensure_ascii=True)
    error = {"message": message, "type": kind.type, "code": kind.code, "param": param}
    if shape is ErrorShape.OPENAI:
        return json.dumps({"error": error}, ensure_ascii=True)
    error["type"] = _ANTHROPIC_TYPES.get(kind.code, _ANTHROPIC_TYPES.get(kind.type, kind.type))
    return json.dumps({"type": "error", "error": error}, ensure_ascii=True)
