"""An access log on disk: the file being written and those that were rotated, oldest first.

A rotated file has the log's name and a number behind it. Ours is the time of the rotation, so names
tell the order; of files that others rotated, the time of the last write tells it.
"""

import hashlib
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from meter.ingest.log_file.position import LogPosition

# The first line is shorter, and with its time and request id no other file begins with it.
FINGERPRINT_BYTES: Final = 1024
# Names that `rotated_name` makes: year to microsecond.
_STAMP_FORMAT: Final = "%Y%m%d%H%M%S%f"
_STAMP_DIGITS: Final = 20
_NS_OF_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log. `order_ns` is when it was rotated or last written, in ns since 1970."""

    path: Path
    inode: int
    size_bytes: int
    order_ns: int
    is_current: bool
    is_ours: bool


def list_log_files(log: Path) -> list[LogFile]:
    """The files of a log, oldest first and the one being written last.

    Empty where the log's folder does not exist yet. Raises OSError when it cannot be read.
    """
    rotated = re.compile(re.escape(log.name) + r"\.\d+")
    try:
        names = [path.name for path in log.parent.iterdir()]
    except FileNotFoundError:
        return []
    found: dict[int, LogFile] = {}
    for name in sorted(names, key=len):
        if name == log.name or rotated.fullmatch(name):
            file = _find_file(log, log.with_name(name))
            if file is not None:
                # A file with two names is one file; the shorter name is the one in use.
                found.setdefault(file.inode, file)
    return sorted(found.values(), key=lambda file: (file.is_current, file.order_ns, file.path.name))


def rotated_name(log: Path, now: datetime) -> Path:
    """Return the name that a log gets when it is rotated at this time."""
    return log.with_name(f"{log.name}.{now.astimezone(UTC).strftime(_STAMP_FORMAT)}")


def fingerprint(head: bytes, offset_bytes: int) -> bytes:
    """A digest of a file's first bytes, those before the offset only: they never change again."""
    return hashlib.sha256(head[: min(offset_bytes, FINGERPRINT_BYTES)]).digest()


def find_in(files: Sequence[LogFile], position: LogPosition) -> int | None:
    """Return the file that a position is in, by inode; None when it is in none."""
    for index, file in enumerate(files):
        if file.inode == position.inode:
            return index
    return None


def _find_file(log: Path, path: Path) -> LogFile | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    rotated_ns = _rotated_ns(path.suffix[1:])
    return LogFile(
        path=path,
        inode=found.st_ino,
        size_bytes=found.st_size,
        order_ns=found.st_mtime_ns if rotated_ns is None else rotated_ns,
        is_current=path == log,
        is_ours=rotated_ns is not None,
    )


def _rotated_ns(digits: str) -> int | None:
    if len(digits) != _STAMP_DIGITS:
        return None
    try:
        rotated = datetime.strptime(digits, _STAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(rotated.timestamp()) * _NS_OF_S + rotated.microsecond * 1000
