"""The facts of one request that a decision uses."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final
from uuid import UUID

from meter.postgres.fast_uuid import FastUUID
from meter.values import light_value

UUID_CHARS: Final = 36
MAX_LENGTH_DIGITS: Final = 18
# Envoy's own word that the check has only the beginning of the body; it drops a client's.
PARTIAL_BODY_HEADER: Final = "x-envoy-auth-partial-body"
# Other headers that Envoy sends are not read.
HEADERS_USED: Final = frozenset(
    {
        "authorization",
        "x-api-key",
        "content-type",
        "content-encoding",
        "x-request-id",
        "x-forwarded-for",
        "content-length",
        "x-tollkeeper-account",
        PARTIAL_BODY_HEADER,
    }
)


@light_value
class AuthRequest:
    """One request as Envoy describes it.

    `path` includes the query string. `headers` has lower-case names and every occurrence apart,
    limited to HEADERS_USED. Headers and body stay out of `repr`: they hold secrets. `peer` is the
    address that connected, `certificate` the name in the client's certificate, `extensions` the
    context extensions in the route's configuration. `shows_body` is false for a proxy that sends
    no bodies.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    peer: str = ""
    certificate: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)
    shows_body: bool = True
    _values: dict[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the headers by name, because a decision reads several of them."""
        values: dict[str, list[str]] = {}
        for name, value in self.headers:
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]
        object.__setattr__(self, "_values", values)

    def values(self, name: str) -> Sequence[str]:
        """Return every value of a header, in the order of arrival."""
        return self._values.get(name, ())

    @property
    def is_body_partial(self) -> bool:
        """Return whether Envoy says that the body is only the beginning of a longer one."""
        return "true" in self.values(PARTIAL_BODY_HEADER)

    def announced_bytes(self, most_bytes: int) -> int:
        """Return the length that the body is announced with; `most_bytes` where it is not."""
        found = self.values("content-length")
        if len(found) != 1 or not found[0].isascii() or not found[0].isdigit():
            return most_bytes
        return min(int(found[0][:MAX_LENGTH_DIGITS]), most_bytes)

    @property
    def request_id(self) -> str | None:
        """Return Envoy's id of the request, for logs only, because clients can set it."""
        return next(iter(self.values("x-request-id")), None)

    @property
    def request_uuid(self) -> UUID | None:
        """Return the id as a UUID, the form in which Envoy makes it; None for another form."""
        found = self.values("x-request-id")
        if len(found) != 1 or len(found[0]) != UUID_CHARS:
            return None
        try:
            return FastUUID(found[0])
        except ValueError:
            return None
