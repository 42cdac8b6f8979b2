"""The client of the meter API: one request at a time, each error as one sentence."""

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from tollkeeper.errors import CommandError
from tollkeeper.stack.home import locate, read_operator_token
from tollkeeper.stack.settings import load_settings
from tollkeeper.stack.supervision.status import find_status

REQUEST_TIMEOUT_S: Final = 30.0
PAGE_ROWS: Final = 200
FIRST_SERVER_ERROR: Final = 500
_ADMIN: Final = "/api/v1/admin"
# The place of a fault in a message of the API: `body.budgets.day: ...; path.rule_id: ...`.
_PLACE: Final = re.compile(r"(?:^|(?<=; ))(?:body|path|query)(?:\.|: )")


class NoAnswer(CommandError):
    """The meter API gave no answer or a server error: it may have done its work or not."""


@dataclass(frozen=True, slots=True)
class MeterApi:
    """A meter API, by its address, and the operator token for its administrators' part."""

    url: str
    token: str | None = field(repr=False)

    def get(self, path: str, timeout_s: float = REQUEST_TIMEOUT_S, **params: Any) -> Any:
        """Return the reply to a GET of the administrators' part."""
        query = urlencode({name: value for name, value in params.items() if value is not None})
        target = f"{_ADMIN}{path}{'?' if query else ''}{query}"
        return self._ask("GET", target, None, self._authorization(), timeout_s)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Any:
        """Return the reply to a POST, PUT, PATCH or DELETE; None when the reply has no body."""
        presented = {**self._authorization(), **(headers or {})}
        return self._ask(method, _ADMIN + path, body, presented, timeout_s)

    def get_public(self, path: str) -> Any:
        """Return the reply to a GET that needs no credential."""
        return self._ask("GET", path, None, {}, REQUEST_TIMEOUT_S)

    def post_public(self, path: str, body: object) -> Any:
        """Return the reply to a POST that needs no credential."""
        return self._ask("POST", path, body, {}, REQUEST_TIMEOUT_S)

    def rows(self, path: str, most: int, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield at most `most` rows of a list, fetched page by page."""
        cursor = None
        left = most
        while left > 0:
            page = self.get(path, limit=min(left, PAGE_ROWS), cursor=cursor, **params)
            yield from page["data"]
            left -= len(page["data"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def lines(self, path: str, **params: Any) -> Iterator[bytes]:
        """Yield the lines of a file. Raises NoAnswer if it breaks off."""
        query = urlencode({name: value for name, value in params.items() if value is not None})
        request = urllib.request.Request(
            f"{self.url}{_ADMIN}{path}?{query}", headers=self._authorization()
        )
        with self._answers(), _open(request, REQUEST_TIMEOUT_S) as answer:
            yield from answer

    def _authorization(self) -> dict[str, str]:
        if self.token is None:
            raise CommandError(
                "Tollkeeper was never started here, so there is no operator token; start it with "
                "`make up`, or set TOLLKEEPER_OPERATOR_TOKEN or TOLLKEEPER_HOME."
            )
        return {"Authorization": f"Bearer {self.token}"}

    def _ask(
        self,
        method: str,
        target: str,
        body: object,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Any:
        content = None if body is None else json.dumps(body).encode()
        presented = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + target, content, presented, method=method)
        with self._answers(), _open(request, timeout_s) as answer:
            return _document(answer.read(), self.url)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn refusals and missing answers into errors of commands."""
        try:
            yield
        except urllib.error.HTTPError as error:
            raise _refused(error, self.url) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ConnectionRefusedError):
                raise NoAnswer(
                    f"Tollkeeper does not run here (no program listens at {self.url}); "
                    "start it with `make up`."
                ) from None
            raise NoAnswer(
                f"The meter API at {self.url} does not answer ({reason}); "
                "`tollkeeper status` shows what is down."
            ) from None


def connect(api: str | None, home: Path | None) -> MeterApi:
    """Find the meter API: the one that is named, else the one of the stack on this machine.

    Raises StackError for settings that make no sense, CommandError for an unusable address.
    """
    settings = load_settings(home=home)
    place = locate(settings.home)
    # Ports may have been chosen on the command line of `up`; the running stack notes them.
    status = None if api or "api_port" in settings.model_fields_set else find_status(place.status)
    noted = status.endpoints.get("api") if status else None
    url = (api or noted or f"http://127.0.0.1:{settings.api_port}").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError(
            "The address of the meter API must begin with http:// or https://; "
            "check --api and TOLLKEEPER_API_URL."
        )
    return MeterApi(url, read_operator_token(settings.operator_token, place))


def segment(text: str) -> str:
    """Return an id as one segment of a URL's path; raises CommandError for an empty id."""
    if not text:
        raise CommandError("An id must not be empty.")
    return quote(text, safe="")


def _open(request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    answer: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would carry the operator token to another server."""

    def redirect_request(self, *_: object) -> None:
        return None


def _document(content: bytes, url: str) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        raise CommandError(
            f"The server at {url} is not Tollkeeper's meter API; check --api, "
            "TOLLKEEPER_API_URL and TOLLKEEPER_API_PORT."
        ) from None


def _refused(error: urllib.error.HTTPError, url: str) -> CommandError:
    with error:
        problem = _document(error.read(), url)
    if error.code == 401:
        return CommandError(
            f"The meter API at {url} does not accept the operator token; check "
            "TOLLKEEPER_OPERATOR_TOKEN and TOLLKEEPER_HOME."
        )
    detail = problem.get("detail") if isinstance(problem, dict) else None
    # The reader typed options, not a JSON body: cut the place of the fault off.
    sentence = _PLACE.sub("", str(detail or f"the meter API answered {error.code}"))
    if error.code >= FIRST_SERVER_ERROR:
        return NoAnswer(f"{sentence}; `tollkeeper status` shows what is down.")
    return CommandError(f"{sentence[:1].upper()}{sentence[1:]}.")
