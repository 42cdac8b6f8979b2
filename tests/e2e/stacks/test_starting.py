"""A stack of its own as a person starts, loses, ends and starts it again."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.running_stack import RunningStack, is_gone, wait_until
from tests.patience import WAIT_S


@pytest.fixture(scope="module")
def own_stack(make_stack: Callable[[], RunningStack]) -> Iterator[RunningStack]:
    """A stack that these tests end and start, because each start takes seconds of CPU.

    Leave it running.
    """
    stack = make_stack()
    yield stack
    stack.end()


@pytest.fixture(scope="module")
def first_start(own_stack: RunningStack) -> str:
    """The text that its first start prints."""
    outcome = own_stack.run("up", "--detach")
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_the_printed_curl_line_works(first_start: str) -> None:
    assert "SIMULATOR" in first_start
    lines = first_start.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.lstrip().startswith("curl "))
    command = "\n".join(lines[begin : begin + 3])
    answer = subprocess.run(
        ["bash", "-c", command], check=True, capture_output=True, text=True, timeout=WAIT_S
    )
    assert '"choices"' in answer.stdout, answer.stdout


@pytest.mark.usefixtures("first_start")
def test_nothing_outlives_a_killed_supervisor(own_stack: RunningStack) -> None:
    supervisor, children = psutil.Process(own_stack.supervisor_pid), own_stack.children()
    key = own_stack.demo_key
    assert len(children) >= len(own_stack.status()["components"])
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(supervisor), "the supervisor is gone")
    assert own_stack.run("status").returncode == 3
    wait_until(lambda: all(map(is_gone, children)), "all children are gone")
    own_stack.up()
    assert own_stack.demo_key == key
    own_stack.require_credits(key)


@pytest.mark.usefixtures("first_start")
def test_nothing_outlives_the_end_and_another_master_key_is_one_sentence(
    own_stack: RunningStack,
) -> None:
    supervisor, children = psutil.Process(own_stack.supervisor_pid), own_stack.children()
    own_stack.down()
    assert all(map(is_gone, children))
    wait_until(lambda: is_gone(supervisor), "the supervisor is gone")
    assert own_stack.run("status").returncode == 3
    master_key = own_stack.home / "master.key"
    kept = master_key.read_text()
    master_key.write_text("0" * 64 + "\n")
    refused = own_stack.run("up", "--detach")
    assert refused.returncode == 1
    assert "sealed under another master key" in refused.stderr
    assert "Traceback" not in refused.stderr
    master_key.write_text(kept)
    own_stack.up()


def test_a_port_in_use_is_one_sentence(make_stack: Callable[[], RunningStack]) -> None:
    stack = make_stack()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(stack.environment["TOLLKEEPER_PORT"])))
        taken.listen()
        outcome = stack.run("up", "--detach")
    assert outcome.returncode == 1
    assert "is in use by another program; set TOLLKEEPER_PORT" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
