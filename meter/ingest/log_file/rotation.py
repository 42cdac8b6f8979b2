"""Keeps an access log bounded on disk: renames it when it is large, deletes what has been read.

Each step may be the last one before a crash. A log that was renamed and not opened anew by Envoy
is missing under its name, and whoever comes next asks Envoy again.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from meter.ingest.log_file.files import find_in, list_log_files, rotated_name
from meter.ingest.log_file.position import LogPosition

ROTATE_AT_BYTES: Final = 256 * 1024 * 1024
KEPT_FILES: Final = 4
LEAST_UPTIME_S: Final = 300


@dataclass(frozen=True, slots=True)
class RotationBounds:
    """The size at which a log is rotated, and the number of read files that stay.

    An Envoy that is younger than `least_uptime_s` may stand beside the one that it replaces, which
    drains and would go on writing into the file that was renamed.
    """

    rotate_at_bytes: int = ROTATE_AT_BYTES
    kept_files: int = KEPT_FILES
    least_uptime_s: int = LEAST_UPTIME_S


def is_missing(log: Path) -> bool:
    """Return whether Envoy has to be asked to open the log: no file of that name is there.

    Envoy makes one when it starts, so somebody renamed or deleted it. Into a file that was deleted
    Envoy would go on writing what nobody can read.
    """
    files = list_log_files(log)
    return not files or not files[-1].is_current


def rotate(log: Path, bounds: RotationBounds, now: datetime) -> Path | None:
    """Rename the log if it is too large; its new name, or None. Raises OSError."""
    files = list_log_files(log)
    if not files or not files[-1].is_current or files[-1].size_bytes < bounds.rotate_at_bytes:
        return None
    target = rotated_name(log, now)
    if target.exists():
        # Renaming would replace it. The clock stood still or went back: the next look is soon.
        return None
    log.rename(target)
    return target


def delete_read(log: Path, bounds: RotationBounds, position: LogPosition) -> list[Path]:
    """Delete the oldest files that were read to their end; returns which. Raises OSError.

    Those are the files before the one that the position is in. Only names that `rotate` gave are
    deleted: what others rotated is theirs to keep or delete.
    """
    files = list_log_files(log)
    index = find_in(files, position)
    if index is None:
        return []
    surplus = max(0, sum(file.is_ours for file in files) - bounds.kept_files)
    doomed = [file for file in files[:index] if file.is_ours][:surplus]
    for file in doomed:
        file.path.unlink(missing_ok=True)
    return [file.path for file in doomed]
