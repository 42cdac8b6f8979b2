"""Errors as replies: RFC 9457 problem details, or OpenAI's shape where OpenAI's clients ask.

No reply repeats a value that the caller sent, so that no secret comes back in an error.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from meter.api.client_paths import advise, is_of_clients, is_of_openrouter
from meter.errors import (
    Conflict,
    InvalidAmount,
    InvalidRequest,
    MeterError,
    NotFound,
    NotPermitted,
    Outage,
    SealBroken,
    UnknownReference,
)
from meter.exports.export_stream import TooManyExports
from meter.ledger import credit as top_up
from meter.payments.coupons import (
    CouponNotValid,
    CouponOfOtherPlan,
    CouponRedeemed,
    TooManyAttempts,
)
from meter.payments.go_live import SellingNotOpen
from meter.payments.purchase import AmountOutOfBounds
from meter.payments.stripe_facts import StripeRefused, StripeUnavailable
from meter.providers.base_urls import BaseUrlRefused
from meter.providers.key_service import KeyNotTried, KeyRefused
from meter.providers.own_keys import TooManyRefusedKeys

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
MOST_FIELD_ERRORS: Final = 20
MAX_FIELD_CHARS: Final = 100

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class FieldErrorReply(BaseModel):
    """A fault of one member of a request."""

    field: str = Field(examples=["body.amount"])
    message: str = Field(examples=["an amount is a decimal string of US dollars"])
    code: str = Field(examples=["value_error"])


class ProblemReply(BaseModel):
    """An error in the form of RFC 9457; `code` is stable and for programs."""

    type: str = Field(examples=["urn:tollkeeper:problem:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no user 'usr_x'"])
    code: str = Field(examples=["not_found"])
    errors: list[FieldErrorReply] = Field(default_factory=list)


@dataclass(eq=False)
class ProblemError(Exception):
    """A refusal by the API itself. Any code that answers a request may raise it."""

    status: int
    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[FieldErrorReply] = ()


_BY_EXCEPTION: Final[dict[type[MeterError], tuple[int, str]]] = {
    NotFound: (404, "not_found"),
    top_up.InsufficientAvailable: (409, "insufficient_available"),
    top_up.IdempotencyKeyReused: (409, "idempotency_key_reused"),
    top_up.BalanceTooLarge: (409, "balance_too_large"),
    Conflict: (409, "conflict"),
    SellingNotOpen: (404, "selling_off"),
    CouponNotValid: (404, "coupon_not_valid"),
    CouponRedeemed: (409, "coupon_redeemed"),
    CouponOfOtherPlan: (409, "coupon_of_other_plan"),
    TooManyAttempts: (429, "too_many_attempts"),
    TooManyExports: (429, "too_many_exports"),
    AmountOutOfBounds: (422, "amount_not_sold"),
    StripeRefused: (409, "stripe_refused"),
    NotPermitted: (403, "not_permitted"),
    SealBroken: (409, "other_master_key"),
    InvalidAmount: (422, "invalid_amount"),
    UnknownReference: (422, "unknown_reference"),
    BaseUrlRefused: (422, "base_url_refused"),
    KeyRefused: (422, "provider_key_refused"),
    KeyNotTried: (503, "provider_unavailable"),
    TooManyRefusedKeys: (429, "too_many_attempts"),
    InvalidRequest: (422, "invalid_request"),
}
_HTTP_CODES: Final = {
    404: ("route_not_found", "there is no such route; /openapi.json lists them all"),
    405: ("method_not_allowed", "this route does not answer that method"),
    413: ("request_too_large", "the body is larger than 1 MiB"),
}


def render(request: Request, problem: ProblemError) -> Response:
    """Return the reply for a problem, in the shape that the clients of the path expect."""
    if is_of_clients(request.url.path):
        return _client_error(problem, is_of_openrouter(request.url.path))
    body = ProblemReply(
        type=f"urn:tollkeeper:problem:{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        errors=list(problem.errors),
    )
    return Response(
        body.model_dump_json(),
        problem.status,
        headers={**problem.headers},
        media_type=PROBLEM_MEDIA_TYPE,
    )


def _client_error(problem: ProblemError, is_openrouters: bool) -> Response:
    kinds = {404: "not_found_error", 503: "service_unavailable"}
    kind = kinds.get(
        problem.status, "server_error" if problem.status >= 500 else "invalid_request_error"
    )
    if is_openrouters:
        # Its clients validate that the code is a number, and reject the whole answer otherwise.
        told = {"error_code": problem.code, "error_type": kind, "param": None}
        error = {"code": problem.status, "message": problem.detail, "metadata": told}
        body: dict[str, object] = {"error": error}
    else:
        error = {"message": problem.detail, "type": kind, "code": problem.code, "param": None}
        # Anthropic's clients read the same error, and look for the member `type` beside it.
        body = {"type": "error", "error": error}
    return Response(
        json.dumps(body),
        problem.status,
        headers={**problem.headers},
        media_type="application/json",
    )


async def answer_problem(request: Request, error: Exception) -> Response:
    """Answer a ProblemError."""
    assert isinstance(error, ProblemError)
    return render(request, error)


async def answer_meter_error(request: Request, error: Exception) -> Response:
    """Answer an error that the meter raises on purpose; raise a broken invariant or seal again."""
    assert isinstance(error, MeterError)
    if isinstance(error, Outage):
        _log.warning("api_outage", reason=str(error))
        is_stripe = isinstance(error, StripeUnavailable)
        return render(request, stripe_unavailable() if is_stripe else unavailable())
    for kind in type(error).__mro__:
        if kind in _BY_EXCEPTION:
            status, code = _BY_EXCEPTION[kind]
            return render(request, ProblemError(status, code, str(error)))
    # No request is at fault for a broken invariant or seal; the observer logs it and answers 500.
    raise error


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer a refusal of the framework: unknown routes, methods, bodies."""
    assert isinstance(error, HTTPException)
    code, detail = _HTTP_CODES.get(error.status_code, ("bad_request", str(error.detail)))
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = advise(request.url.path) or detail
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return render(request, ProblemError(error.status_code, code, detail, headers))


async def answer_invalid_request(request: Request, error: Exception) -> Response:
    """Answer a request that does not fit the description of its route."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return render(request, ProblemError(400, "invalid_json", "the body is not valid JSON"))
    errors = [_field_error(one) for one in found[:MOST_FIELD_ERRORS]]
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors[:3])
    return render(request, ProblemError(422, "invalid_request", detail, errors=errors))


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes at this path; the framework names those of one route."""
    matching = (
        route
        for route in request.app.state.all_routes
        if route.matches(request.scope)[0] is not Match.NONE
    )
    methods = {method for route in matching for method in getattr(route, "methods", ())}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def unavailable() -> ProblemError:
    """Return the problem of an outage of Postgres, in which a retry may help."""
    return ProblemError(
        503,
        "unavailable",
        "Postgres does not answer at the moment; try again",
        {"Retry-After": str(RETRY_AFTER_S)},
    )


def stripe_unavailable() -> ProblemError:
    """Return the problem of an outage of Stripe, in which a retry may help."""
    return ProblemError(
        503,
        "stripe_unavailable",
        "Stripe does not answer at the moment, or does not accept our key; try again",
        {"Retry-After": str(RETRY_AFTER_S)},
    )


def internal_error() -> ProblemError:
    """Return the problem of a fault in the meter. The log has the details, the reply has none."""
    return ProblemError(500, "internal_error", "the request failed because of a fault in the meter")


def _field_error(one: Mapping[str, Any]) -> FieldErrorReply:
    where = ".".join(str(part) for part in one["loc"])
    # A member's name is the caller's own text, and may be long or not even be Unicode.
    where = where.encode("utf-8", "replace").decode()[:MAX_FIELD_CHARS]
    message = str(one["msg"]).removeprefix("Value error, ")
    if one["type"] == "extra_forbidden":
        message = "there is no such member"
    return FieldErrorReply(field=where, message=message, code=str(one["type"]))
