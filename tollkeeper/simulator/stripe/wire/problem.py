"""Errors in Stripe's shape."""

from typing import Any

Json = dict[str, Any]


class Problem(Exception):
    """An error answer: status, type, code, message and what else Stripe's error object holds.

    `is_kept` says that the answer is stored under the request's idempotency key. Stripe stores
    what an endpoint answers, but not an error that was found before the endpoint began.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        is_kept: bool = True,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code
        self.param = param
        self.is_kept = is_kept
        self.headers = headers or {}
        self.members = members

    def to_json(self, request_id: str) -> Json:
        """Return the body; absent members are left out, as Stripe leaves them out."""
        error: Json = {"type": self.kind, "message": self.message}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        error |= {name: value for name, value in self.members.items() if value is not None}
        return {"error": error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """Return an error about a state that forbids the request."""
    return Problem(400, "invalid_request_error", message, code=code, param=param)


def bad_parameter(message: str, param: str | None, code: str | None = None) -> Problem:
    """Return an error about a parameter; it is found before the endpoint begins."""
    return Problem(400, "invalid_request_error", message, code=code, param=param, is_kept=False)


def missing(kind: str, identifier: str, param: str = "id", status: int = 404) -> Problem:
    """Return the error for an object that does not exist."""
    name = kind.replace(".", "").replace("_", "")
    return Problem(
        status,
        "invalid_request_error",
        f"No such {name}: '{identifier}'",
        code="resource_missing",
        param=param,
    )
