"""Named points in the code at which a test can make the process die as a power cut would.

Production runs with `NoCrashPoints`. With TOLLKEEPER_CRASH_FOLDER set, a file in that folder named
like a point makes the next process that reaches it remove the file and kill itself.
"""

import os
import signal
from pathlib import Path
from typing import Protocol


class CrashPoints(Protocol):
    """The points at which tests can kill a process."""

    def reach(self, name: str) -> None:
        """Say that the point is reached; may not return."""
        ...


class NoCrashPoints:
    """No point is dangerous."""

    def reach(self, name: str) -> None:
        """Return at once."""


class FolderOfCrashPoints:
    """Points that are armed by a file of their name in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reach(self, name: str) -> None:
        """Die here, without a last word, when the point is armed. It is disarmed by that."""
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def crash_points_in(folder: Path | None) -> CrashPoints:
    """The points armed in a folder; none without one."""
    return NoCrashPoints() if folder is None else FolderOfCrashPoints(folder)
