"""The state folder: the files kept between runs, and the checks of the folder."""

import contextlib
import fcntl
import hashlib
import os
import pwd
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tollkeeper.stack.errors import StackError

MAX_SOCKET_PATH_BYTES = 100
MASTER_KEY_BYTES = 32
OPERATOR_TOKEN_BYTES = 32
LOCK_ATTEMPTS = 5
LOCK_RETRY_S = 0.05
MARKER = "tollkeeper-home"
LAYOUT_VERSION = "1"
# A fresh volume may hold these before anybody has used it.
FOREIGN_ENTRIES = frozenset({"lost+found"})
_LONGEST_SOCKET = "authz-16-health.sock"


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder and the paths in it.

    Sockets live in `run`, which is outside when the path of the folder is too
    long for a Unix socket address.
    """

    root: Path
    run: Path

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def envoy(self) -> Path:
        return self.root / "envoy"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def simulator(self) -> Path:
        return self.root / "simulator"

    @property
    def master_key(self) -> Path:
        return self.root / "master.key"

    @property
    def operator_token(self) -> Path:
        return self.root / "operator.token"

    @property
    def demo_key(self) -> Path:
        return self.root / "demo.key"

    @property
    def simulator_key(self) -> Path:
        return self.simulator / "provider.key"

    @property
    def reports_token(self) -> Path:
        return self.root / "provider-reports.token"

    @property
    def simulator_port(self) -> Path:
        return self.simulator / "port"

    def dialect_port(self, dialect_id: str) -> Path:
        return self.simulator / f"{dialect_id}.port"

    @property
    def stripe_port(self) -> Path:
        return self.simulator / "stripe.port"

    @property
    def stripe_key(self) -> Path:
        return self.simulator / "stripe.key"

    @property
    def stripe_webhook_secret(self) -> Path:
        return self.simulator / "stripe-webhook.secret"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def access_log(self) -> Path:
        return self.envoy / "access.jsonl"

    @property
    def clusters(self) -> Path:
        # In a folder of its own: Envoy looks at the file again whenever one is put into it.
        return self.envoy / "clusters" / "clusters.json"

    @property
    def envoy_admin(self) -> Path:
        return self.run / "envoy-admin.sock"

    @property
    def control(self) -> Path:
        return self.run / "control.sock"

    @property
    def pid(self) -> Path:
        return self.root / "supervisor.pid"


def locate(root: Path) -> Home:
    """Name the parts of a state folder without touching it."""
    root = root.absolute()
    inside = root / "run"
    if len(os.fsencode(inside / _LONGEST_SOCKET)) <= MAX_SOCKET_PATH_BYTES:
        return Home(root, inside)
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Home(root, Path(tempfile.gettempdir()) / f"tollkeeper-{os.geteuid()}-{digest}")


def open_home(home: Home) -> None:
    """Make the state folder, or check that it is ours and whole.

    Raises StackError, in one sentence, when it is not.
    """
    try:
        _claim(home.root)
        folders = (home.run, home.redis, home.envoy, home.logs, home.simulator)
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
            _require_ours(folder)
            folder.chmod(0o700)
        _make_secrets(home)
    except OSError as error:
        raise StackError(
            f"The state folder {home.root} cannot be used: {error.strerror} "
            f"({error.filename}); set TOLLKEEPER_HOME to a folder that can be written."
        ) from error


def _claim(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise StackError(f"The state folder {root} is not a folder; set TOLLKEEPER_HOME to one.")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_ours(root)
    if not os.access(root, os.W_OK | os.X_OK):
        raise StackError(
            f"The state folder {root} cannot be written; set TOLLKEEPER_HOME to one that can."
        )
    # Before the chmod: the permissions of a folder with other things in it must stay.
    marker = root / MARKER
    if not marker.exists():
        if {entry.name for entry in root.iterdir()} - FOREIGN_ENTRIES:
            raise StackError(
                f"The folder {root} holds other things and is not a state folder of Tollkeeper; "
                "set TOLLKEEPER_HOME to an empty or new folder."
            )
        write_private(marker, LAYOUT_VERSION + "\n")
    version = marker.read_text().strip()
    if version != LAYOUT_VERSION:
        raise StackError(
            f"The state folder {root} has layout {version!r} and this Tollkeeper reads "
            f"{LAYOUT_VERSION!r}; use the version that wrote it."
        )
    root.chmod(0o700)


def _require_ours(path: Path) -> None:
    owner = path.stat().st_uid
    if owner == os.geteuid():
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"user {owner}"
    raise StackError(
        f"The folder {path} belongs to {name}, not to you; start as {name} or set "
        "TOLLKEEPER_HOME to a folder of your own."
    )


def _make_secrets(home: Home) -> None:
    if not home.master_key.exists():
        if (home.postgres / "PG_VERSION").exists():
            raise StackError(
                f"{home.master_key} is missing although {home.postgres} holds a database that "
                "needs it; put the key back from your backup, or move the folder "
                f"{home.root} away to begin anew."
            )
        write_private(home.master_key, secrets.token_hex(MASTER_KEY_BYTES) + "\n")
    try:
        is_whole = len(bytes.fromhex(home.master_key.read_text().strip())) == MASTER_KEY_BYTES
    except ValueError:
        is_whole = False
    if not is_whole:
        raise StackError(
            f"{home.master_key} does not hold a key of {2 * MASTER_KEY_BYTES} hexadecimal digits; "
            "put it back from your backup."
        )
    if not home.operator_token.exists():
        write_private(home.operator_token, secrets.token_urlsafe(OPERATOR_TOKEN_BYTES) + "\n")


def write_private(path: Path, text: str, *, is_durable: bool = True) -> None:
    """Put a file of mode 0600 in place as a whole: readers see the old or the new one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            if is_durable:
                os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def sole_supervisor(home: Home) -> Iterator[None]:
    """Be the only supervisor of this state folder, for as long as the process lives.

    The lock is the kernel's: it ends with the process, however that ends.
    Raises StackError when another one holds it.
    """
    descriptor = os.open(home.pid, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor):
            pid = os.read(descriptor, 32).decode().strip() or "unknown"
            raise StackError(
                f"Tollkeeper already runs here (process {pid}); `tollkeeper status` shows it and "
                "`tollkeeper down` (`make down`) stops it."
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take the lock; try again, since `find_supervisor` may hold it for a moment."""
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(LOCK_RETRY_S)
    return False


def unreadable(home: Home, error: OSError) -> StackError:
    """Return the error for a state folder that belongs to another user, or is no folder."""
    return StackError(
        f"The state folder {home.root} cannot be read: {error.strerror}; act as its owner or set "
        "TOLLKEEPER_HOME to a folder of your own."
    )


def find_supervisor(home: Home) -> int | None:
    """The process id of the living supervisor, or None.

    Raises StackError when the folder cannot be read.
    """
    try:
        descriptor = os.open(home.pid, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(home, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32).decode().strip() or 0) or None
    finally:
        os.close(descriptor)
    return None


def read_operator_token(given: SecretStr | None, home: Home) -> str | None:
    """Return the token that the environment gives, else the one in the state folder, else None.

    Raises StackError when the folder cannot be read.
    """
    if given:
        return given.get_secret_value()
    try:
        return home.operator_token.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(home, error) from error
