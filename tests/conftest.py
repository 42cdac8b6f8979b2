"""Real servers for every test that asks for them.

`postgres_server` and `redis_server` live for the session; `database` is a fresh,
migrated database and `redis_url` an emptied Redis for one test.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis import Redis
from xdist.remote import Producer

from tests import schedule, servers
from tollkeeper.stack.servers.postgres import PostgresServer
from tollkeeper.stack.servers.redis_server import RedisServer

# gRPC would start its threads anew in every forked child, where its file descriptors are closed
# already: now and then a server that a test starts dies of it. Read when gRPC is first used.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Compiling what is imported anew in each process of the tests would take a third of their CPU.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says how busy the machine is, not how good the code.
hypothesis.settings.register_profile(
    "tollkeeper", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tollkeeper")

# A shell has what it runs in the background ignore Ctrl-C; `make test` runs the attacks so, and
# who interrupts them wants their stacks ended.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests into their groups, the longest first; the order within a file stays."""
    items.sort(key=lambda item: schedule.rank_of(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> schedule.GroupScheduling:
    """Hand whole groups of tests to the workers."""
    config.option.loadscopereorder = False
    return schedule.GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """End what the tests of a group shared, after the last of them and its fixtures."""
    yield
    schedule.end_with_group(item, nextitem)


IN_MEMORY = "/dev/shm"
ON_DISK = "/tmp"
# Postgres keeps up to 1 GiB of its log, and Redis is small.
ROOM_BYTES = 4 * 2**30


@pytest.fixture(scope="session")
def server_root() -> Iterator[Path]:
    """A short path: Unix socket addresses hold 107 bytes at most.

    In memory where there is much of it: every test has a database of its own, and waiting for a
    disk to keep its files took most of the time.
    """
    with tempfile.TemporaryDirectory(prefix="tk-", dir=_short_folder()) as root:
        yield Path(root)


def _short_folder() -> str:
    try:
        has_room = shutil.disk_usage(IN_MEMORY).free >= ROOM_BYTES
    except OSError:
        return ON_DISK
    return IN_MEMORY if has_room and os.access(IN_MEMORY, os.W_OK) else ON_DISK


@pytest.fixture(scope="session")
def postgres_server(server_root: Path) -> Iterator[PostgresServer]:
    """A real Postgres, durable as in production, without a migrated database."""
    with servers.postgres_running(server_root) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> PostgresServer:
    """The same Postgres once its template database is migrated."""
    servers.run_in_thread(lambda: servers.make_template(postgres_server))
    return postgres_server


@pytest.fixture(scope="session")
def patient_template(migrated_template: PostgresServer) -> PostgresServer:
    """The same Postgres once it has the template whose functions wait long for locks, too."""
    servers.run_in_thread(lambda: servers.make_patient_template(migrated_template))
    return migrated_template


@pytest.fixture
def database(
    request: pytest.FixtureRequest, patient_template: PostgresServer
) -> Iterator[servers.Database]:
    """A fresh, migrated database: `owner_dsn` and `service_dsn`.

    Its functions wait for locks as long as a busy machine takes, unless the test has the mark
    `lock_timeouts`.
    """
    is_patient = request.node.get_closest_marker("lock_timeouts") is None
    template = servers.PATIENT_TEMPLATE if is_patient else servers.TEMPLATE
    fresh = servers.run_in_thread(lambda: servers.clone_template(patient_template, template))
    yield fresh
    servers.run_in_thread(lambda: servers.drop(patient_template, fresh))


@pytest.fixture(scope="session")
def redis_server(server_root: Path) -> Iterator[RedisServer]:
    """A real Redis."""
    with servers.redis_running(server_root) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an emptied Redis."""
    with Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.flushall()
    return redis_server.url
