"""The log of each component: one file, bounded, easy to follow with `tail -F`."""

import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 10 * 1024 * 1024
TAIL_BYTES = 4096
MAX_SHOWN_CHARS = 300


def open_log(path: Path) -> int:
    """A descriptor that appends; what the file held before is kept within its bound."""
    bound(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def bound(path: Path) -> None:
    """Move a log that has grown too long to `<name>.1` and begin anew.

    The writer keeps its descriptor, so the file is copied and truncated rather
    than renamed; lines written between the two are lost, which a log may.
    """
    try:
        if path.stat().st_size <= MAX_LOG_BYTES:
            return
    except FileNotFoundError:
        return
    shutil.copyfile(path, path.with_suffix(path.suffix + ".1"))
    os.truncate(path, 0)


def last_line(path: Path) -> str:
    """The last line that says something, for an error message."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return "nothing"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MAX_SHOWN_CHARS] if lines else "nothing"
