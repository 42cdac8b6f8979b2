"""Reads a log from a position on, a bounded piece at a time, across rotations.

Nothing is kept open or remembered between two reads: going on and resuming after a crash are the
same code. Where the position's file is not to be found as it was, reading begins again at the
oldest file there is: lines are then read twice, which changes nothing, and none is passed over.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from meter.ingest.log_file.files import (
    FINGERPRINT_BYTES,
    LogFile,
    find_in,
    fingerprint,
    list_log_files,
)
from meter.ingest.log_file.position import LogPosition

CHUNK_BYTES: Final = 1024 * 1024
# Usage and errors of a stream are in its line, and a stream's event may have 4 MiB.
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
_LINE_FEED: Final = b"\n"


class Restart(StrEnum):
    """The reasons for reading again from the oldest file."""

    MISSING = "missing"
    TRUNCATED = "truncated"
    REPLACED = "replaced"


class Oddity(StrEnum):
    """The parts of a file that were skipped, besides lines that cannot be read."""

    TORN = "torn"
    TOO_LONG = "too_long"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of one file from `start` on, and where reading goes on after all of them.

    `is_end` says that no whole line was left anywhere when it was read.
    """

    start: LogPosition
    lines: Sequence[bytes]
    next: LogPosition
    head: bytes = b""
    is_end: bool = False
    restart: Restart | None = None
    oddity: Oddity | None = None

    def after(self, count: int) -> LogPosition:
        """The position behind the first `count` lines."""
        if count == len(self.lines):
            return self.next
        offset = self.start.offset_bytes + sum(len(line) + 1 for line in self.lines[:count])
        return _position(self.start.inode, self.head, offset)


class FileReader:
    """Reads the log at `log`. Blocking: call it from a thread. Raises OSError."""

    def __init__(
        self, log: Path, chunk_bytes: int = CHUNK_BYTES, max_line_bytes: int = MAX_LINE_BYTES
    ) -> None:
        self._log = log
        self._chunk_bytes = chunk_bytes
        self._max_line_bytes = max_line_bytes
        # Within a line that is too long, and passed over up to its end.
        self._discarding_at: LogPosition | None = None

    def read(self, position: LogPosition) -> Chunk:
        """The next whole lines, or a move to the next file, or nothing when all is read."""
        files, index = self._locate(position)
        if not files:
            return Chunk(position, (), position, is_end=True)
        if index is None:
            return self._begin_anew(files, position, Restart.MISSING)
        try:
            with files[index].path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_ino != position.inode:
                    # Renamed since it was listed; the next read finds it under its new name.
                    return Chunk(position, (), position)
                return self._read_file(file, files, index, position)
        except FileNotFoundError:
            return Chunk(position, (), position)

    def unread_bytes(self, position: LogPosition) -> int:
        """Return the bytes after a position, in its file and in all newer ones."""
        files, index = self._locate(position)
        if index is None:
            return sum(file.size_bytes for file in files)
        left = max(0, files[index].size_bytes - position.offset_bytes)
        return left + sum(file.size_bytes for file in files[index + 1 :])

    def _locate(self, position: LogPosition) -> tuple[list[LogFile], int | None]:
        """The files, and which of them the position is in.

        Looked for twice: a file that is renamed while the folder is listed is seen under no name.
        """
        files = list_log_files(self._log)
        if find_in(files, position) is None:
            files = list_log_files(self._log)
        return files, find_in(files, position)

    def _begin_anew(
        self, files: Sequence[LogFile], position: LogPosition, restart: Restart
    ) -> Chunk:
        # The very first reading is no restart.
        reason = restart if position.inode else None
        return Chunk(position, (), _beginning(files[0]), restart=reason)

    def _read_file(
        self, file: BinaryIO, files: Sequence[LogFile], index: int, position: LogPosition
    ) -> Chunk:
        text = self._read_piece(file, position.offset_bytes)
        # Read last, so that it is not shorter than the text: the file may be growing.
        head = _read_at(file, 0, FINGERPRINT_BYTES)
        if os.fstat(file.fileno()).st_size < position.offset_bytes:
            return self._begin_anew(files, position, Restart.TRUNCATED)
        if fingerprint(head, position.offset_bytes) != position.fingerprint:
            return self._begin_anew(files, position, Restart.REPLACED)
        end = text.rfind(_LINE_FEED) + 1
        if end:
            return self._whole_lines(position, text[:end], head)
        if len(text) >= self._max_line_bytes:
            return self._pass_over(position, len(text), head)
        if index + 1 < len(files):
            # The younger file was there before this end was seen, so nothing is added here.
            oddity = Oddity.TORN if text else None
            return Chunk(position, (), _beginning(files[index + 1]), oddity=oddity)
        return Chunk(position, (), position, is_end=True)

    def _read_piece(self, file: BinaryIO, offset: int) -> bytes:
        text = _read_at(file, offset, self._chunk_bytes)
        if len(text) == self._chunk_bytes and _LINE_FEED not in text:
            text += _read_at(file, offset + len(text), self._max_line_bytes - len(text))
        return text

    def _whole_lines(self, position: LogPosition, text: bytes, head: bytes) -> Chunk:
        lines = text.split(_LINE_FEED)[:-1]
        start = position
        if self._discarding_at == position:
            rest = lines.pop(0)
            start = _position(position.inode, head, position.offset_bytes + len(rest) + 1)
        self._discarding_at = None
        end = _position(position.inode, head, position.offset_bytes + len(text))
        return Chunk(start, lines, end, head)

    def _pass_over(self, position: LogPosition, length: int, head: bytes) -> Chunk:
        """Move on within a line that is too long, without keeping any of it."""
        is_first = self._discarding_at != position
        self._discarding_at = _position(position.inode, head, position.offset_bytes + length)
        oddity = Oddity.TOO_LONG if is_first else None
        return Chunk(position, (), self._discarding_at, oddity=oddity)


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Up to that many bytes; fewer only at the end of the file."""
    pieces: list[bytes] = []
    while length > 0:
        piece = os.pread(file.fileno(), length, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def _beginning(file: LogFile) -> LogPosition:
    return LogPosition(file.inode, fingerprint(b"", 0), 0)


def _position(inode: int, head: bytes, offset: int) -> LogPosition:
    return LogPosition(inode, fingerprint(head, offset), offset)
