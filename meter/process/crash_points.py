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
        """Report that the point is reached; may not return."""
        ...


class NoCrashPoints:
    """Crash points for production: none is armed."""

    def reach(self, name: str) -> None:
        """Return at once."""


class FolderOfCrashPoints:
    """Points that are armed by a file of their name in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reach(self, name: str) -> None:
        """Kill the process if the point is armed, and disarm the point."""
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def crash_points_in(folder: Path | None) -> CrashPoints:
    """Return the crash points of a folder; NoCrashPoints where there is no folder."""
    return NoCrashPoints() if folder is None else FolderOfCrashPoints(folder)
