"""Records of requests as each client saw them, one line a request."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

TAG_HEADER: Final = "x-chaos-tag"
KIND_HEADER: Final = "x-chaos-kind"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request and how it ended for its client.

    `tag` travels to the upstream in a header, where it names nothing that money depends on.
    `is_complete` means that the whole reply arrived, its end included. `refusal` is the `code` of
    an error body. Times are seconds since the epoch.
    """

    tag: str
    account: str
    kind: str
    protocol: str
    leaves: str | None
    sent_at: float
    ended_at: float | None = None
    status: int | None = None
    generation_id: str | None = None
    request_id: str | None = None
    is_complete: bool = False
    refusal: str | None = None
    error: str | None = None

    def to_line(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


class Records:
    """Keeps what clients saw, in memory and in a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self.seen: list[Seen] = []

    def add(self, one: Seen) -> None:
        """Keep one ended request."""
        self.seen.append(one)
        self._file.write(one.to_line())

    def close(self) -> None:
        """Write down what is not written yet."""
        self._file.close()


def find_refusal(body: bytes) -> str | None:
    """The `code` of an error body, or None when the body is something else."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(code)


def with_headers(seen: Seen, status: int, headers: dict[str, str]) -> Seen:
    """Return a record with what the headers of a reply, in lower case, add to it."""
    return replace(
        seen,
        status=status,
        generation_id=headers.get("x-generation-id"),
        request_id=headers.get("x-request-id"),
    )
