"""Who calls: an operator with the operator token, or an account with one of its API keys.

One answer for every credential that is not good, whatever is wrong with it (rule R12).
"""

from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from meter.api.dependencies import FromBooks
from meter.api.problems import ProblemError
from meter.credentials import parse
from meter.stores.credentials import Caller

MAX_CREDENTIAL_CHARS: Final = 512

# These only describe the schemes in the OpenAPI document; the checks are below.
_operator_scheme = HTTPBearer(
    scheme_name="operatorToken",
    description="The operator token: `operator.token` in the state folder.",
    auto_error=False,
)
_key_scheme = HTTPBearer(
    scheme_name="apiKey", description="An API key of the account: `tk-...`.", auto_error=False
)
_key_header_scheme = APIKeyHeader(
    name="x-api-key",
    scheme_name="apiKeyHeader",
    description="The same API key in a header of its own.",
    auto_error=False,
)


async def require_operator(request: Request, books: FromBooks) -> None:
    """Let operators pass; raises ProblemError (401) for everybody else."""
    token = _find_credential(request, headers=("authorization",))
    if token is None or not await books.operators.is_operator(token):
        raise _unauthorized("a valid operator token is required")


async def identify_caller(request: Request, books: FromBooks) -> Caller:
    """The account behind the presented key; raises ProblemError (401) when there is none.

    A suspended account may still read what is its own.
    """
    text = _find_credential(request, headers=("authorization", "x-api-key"))
    presented = None if text is None else parse(text)
    caller = None
    if presented is not None:
        caller = await books.credentials.find_caller(presented.plain.reveal())
    if caller is None:
        raise _unauthorized("a valid API key is required")
    return caller


def _find_credential(request: Request, headers: tuple[str, ...]) -> str | None:
    """The one credential presented; None when there is none, or more than one."""
    found = {
        _without_scheme(name, value) for name in headers for value in request.headers.getlist(name)
    }
    if len(found) != 1:
        return None
    (credential,) = found
    return credential if credential and len(credential) <= MAX_CREDENTIAL_CHARS else None


def _without_scheme(header: str, value: str) -> str:
    if header != "authorization":
        return value.strip()
    scheme, _, credential = value.strip().partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(
        401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="tollkeeper"'}
    )


OperatorOnly = [Depends(_operator_scheme), Depends(require_operator)]
FromCaller = Annotated[Caller, Depends(identify_caller)]
WithKey = [Depends(_key_scheme), Depends(_key_header_scheme)]
