"""Running a server as another user, which Postgres demands of root.

Postgres refuses to run as root. When we are root, the server runs as a system
user that owns nothing but its own folders. A clone below /root (mode 0700) is
closed to that user, so it keeps exactly one capability: to read and search past
file permissions. No permission of any existing folder is changed.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tollkeeper.stack.errors import StackError

SYSTEM_USERS = ("tollkeeper", "postgres")
LAST_RESORT_USER = "nobody"
USERADD_TIMEOUT_S = 20

_CAPABILITY_BITS = {"dac_read_search": 2, "dac_override": 1}


@dataclass(frozen=True, slots=True)
class RunAs:
    """The user that a server runs as, and the words before its command."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def make_private_directory(self, path: Path) -> None:
        """Make `path` a folder that only this user (and root) can open."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if self.prefix:
            os.chown(path, self.uid, self.gid)


def run_as(owned_directory: Path, death_signal: str) -> RunAs:
    """Return the user that should own `owned_directory` and run the server on it.

    `death_signal` (such as "INT") reaches the server when its parent dies: a
    change of user clears what the parent set, so it is set again here.
    Raises StackError when root cannot drop its privileges.
    """
    if os.geteuid() != 0:
        return RunAs(os.geteuid(), os.getegid())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError(
            "Postgres must not run as root and the program setpriv (package util-linux) is "
            "missing; install it or start as an ordinary user."
        )
    # The first start chooses the user; later ones keep to the owner of the folder.
    owner = owned_directory.stat() if owned_directory.exists() else None
    uid, gid = (owner.st_uid, owner.st_gid) if owner and owner.st_uid else _system_user()
    options = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    options.append(f"--pdeathsig={death_signal}")
    capability = _reading_capability()
    if capability:
        options.append("--securebits=+no_setuid_fixup")
        options.append(f"--inh-caps=+{capability}")
        options.append(f"--ambient-caps=+{capability}")
    return RunAs(uid, gid, (setpriv, *options))


def _reading_capability() -> str | None:
    """The weakest capability we hold that reads past permissions; containers may lack both."""
    status = Path("/proc/self/status").read_text()
    line = next((row for row in status.splitlines() if row.startswith("CapPrm:")), "CapPrm: 0")
    permitted = int(line.split()[1], 16)
    for name, bit in _CAPABILITY_BITS.items():
        if permitted >> bit & 1:
            return name
    return None


def _system_user() -> tuple[int, int]:
    for name in SYSTEM_USERS:
        found = _find_user(name)
        if found:
            return found
    useradd = shutil.which("useradd")
    # A machine without useradd falls back to nobody.
    if useradd is not None:
        options = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
        subprocess.run(
            [useradd, *options, SYSTEM_USERS[0]],
            check=False,
            capture_output=True,
            timeout=USERADD_TIMEOUT_S,
        )
    found = _find_user(SYSTEM_USERS[0]) or _find_user(LAST_RESORT_USER)
    if found is None:
        raise StackError(
            "Postgres must not run as root and no other user exists here; "
            f"create one with `useradd --system {SYSTEM_USERS[0]}`."
        )
    return found


def _find_user(name: str) -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid
