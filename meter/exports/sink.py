"""Sinks: systems that usage is sent to, and the terms on which. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from yarl import URL

from meter.errors import InvalidRequest

# Sinks of an installation, ended ones included.
MOST_SINKS: Final = 50
MAX_URL_CHARS: Final = 500
MAX_CREDENTIAL_CHARS: Final = 512
# Where clouds hand out the credentials of the machine, beside the link-local addresses.
_METADATA: Final = IPv6Network("fd00:ec2::/32")


class SinkKind(StrEnum):
    """The kinds of systems: Lago, and all that take CloudEvents over HTTP, as OpenMeter does."""

    LAGO = "lago"
    CLOUD_EVENTS = "cloudevents"


class SinkState(StrEnum):
    """The states of a sink. An ended one has no credential, and history does not wait for it."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SinkTerms:
    """The settings of a sink.

    `event_code` is the code of Lago's billable metric, or the type of CloudEvents. `plan_code` is
    the plan of Lago under which accounts get a subscription; None makes none. Raises InvalidRequest
    for a URL that cannot be one, and for settings of another kind.
    """

    kind: SinkKind
    url: str
    event_code: str
    source: str | None = None
    plan_code: str | None = None

    def __post_init__(self) -> None:
        read_sink_url(self.url)
        if (self.kind is SinkKind.CLOUD_EVENTS) != (self.source is not None):
            raise InvalidRequest("`source` belongs to sinks of CloudEvents, which need it")
        if self.plan_code is not None and self.kind is not SinkKind.LAGO:
            raise InvalidRequest("`plan_code` belongs to sinks at Lago")


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink and how far it is.

    Every record up to `position` was taken or is parked. `behind` counts the positions after it,
    not all of which are usage. `lag_s` is the age of the oldest record that waits, as last seen.
    """

    id: str
    terms: SinkTerms
    state: SinkState
    position: int
    sent: int
    failures: int
    error: str | None
    next_attempt_at: datetime
    created_at: datetime
    has_credential: bool
    parked: int
    behind: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that a sink refuses, and why."""

    position: int
    account_id: str
    event: str
    error: str
    parked_at: datetime
    is_replayed: bool


def read_sink_url(text: str) -> URL:
    """Read an http or https URL without user, query or fragment. Raises InvalidRequest."""
    if not 1 <= len(text) <= MAX_URL_CHARS or not all("!" <= char <= "~" for char in text):
        raise InvalidRequest(f"an address is 1 to {MAX_URL_CHARS} printable ASCII characters")
    try:
        url = URL(text)
        host = url.host
    except ValueError:
        raise InvalidRequest("the address is not a URL") from None
    if url.scheme not in ("http", "https") or not host:
        raise InvalidRequest("the address must begin with https:// or http:// and name a host")
    if any(sign in text for sign in "@#?"):
        raise InvalidRequest("the address must not contain a user, a query or a fragment (@, ?, #)")
    return url


def may_be_sink(text: str) -> bool:
    """Return whether a sink may be at this address, as a resolver gave it.

    Administrators may name a system inside of their network. Link-local addresses hand out the
    credentials of machines, and no sink is at one.
    """
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address in _METADATA:
            return False
        address = address.ipv4_mapped or address.sixtofour or address
    return not (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and not address.is_loopback)
    )
