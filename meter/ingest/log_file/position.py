"""The position of the reader of an access-log file."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The byte from which to read on, in a file that is known again when it was renamed.

    `fingerprint` is a digest of the first bytes before `offset_bytes`: an inode number is given to
    another file once its own is deleted. `inode` is 0 where nothing was read yet.
    """

    inode: int
    fingerprint: bytes
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class LogLease:
    """The right to read a log, held by whoever wrote `read_at` last, until it grows old."""

    path: str
    position: LogPosition
    read_at: datetime
