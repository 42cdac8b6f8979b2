"""The stack as a person lives with it: up, status, kills, down, up again."""

import json
import os
import signal
import socket
import stat
import subprocess
import urllib.request
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.running_stack import RunningStack, wait_until
from tests.patience import WAIT_S

COMPONENTS = ["postgres", "redis", "simulator", "meter", "authz", "authz-bodies", "envoy"]


def ask(url: str, key: str, body: object = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    sent = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data=sent, headers=headers)
    with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
        return reply.status, reply.read()


def children_of(stack: RunningStack) -> list[psutil.Process]:
    return psutil.Process(stack.supervisor_pid).children(recursive=True)


def is_gone(process: psutil.Process) -> bool:
    """Ended, even if nobody has asked how: in a container PID 1 may not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_everything_runs_and_says_so(stack: RunningStack) -> None:
    outcome = stack.run("status", "--json")
    document = json.loads(outcome.stdout)
    assert outcome.returncode == 0
    assert [one["component"] for one in document["components"]] == COMPONENTS
    assert all(one["is_healthy"] and one["state"] == "running" for one in document["components"])
    assert document["holds"]["open"] >= 0
    assert document["holds"]["unknown"] >= 0


def test_a_second_start_is_one_sentence(stack: RunningStack) -> None:
    outcome = stack.run("up")
    assert outcome.returncode == 1
    assert f"already runs here (process {stack.supervisor_pid})" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_the_printed_curl_line_works(make_stack: Callable[[], RunningStack]) -> None:
    stack = make_stack()
    outcome = stack.run("up", "--detach")
    assert outcome.returncode == 0, outcome.stderr
    assert "SIMULATOR" in outcome.stdout
    lines = outcome.stdout.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.lstrip().startswith("curl "))
    command = "\n".join(lines[begin : begin + 3])
    answer = subprocess.run(
        ["bash", "-c", command], check=True, capture_output=True, text=True, timeout=WAIT_S
    )
    assert '"choices"' in answer.stdout, answer.stdout
    stack.down()
    assert stack.run("status").returncode == 3


def test_secrets_stay_private(stack: RunningStack) -> None:
    for name in ("master.key", "operator.token", "demo.key", "simulator/provider.key"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600, name
    secrets = [stack.operator_token, stack.demo_key]
    secrets += [(stack.home / name).read_text().strip() for name in ("master.key",)]
    secrets += [(stack.home / "simulator" / "provider.key").read_text().strip()]
    logs = b"".join(log.read_bytes() for log in (stack.home / "logs").iterdir())
    lines = " ".join(" ".join(child.cmdline()) for child in children_of(stack))
    for secret in secrets:
        assert secret.encode() not in logs
        assert secret not in lines


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_killed_component_comes_back(stack: RunningStack, name: str) -> None:
    stack.wait_healthy()
    before = stack.component(name)["restarts"]
    stack.kill(name)
    stack.wait_restarted(name, before)
    stack.wait_healthy()
    assert ask(f"{stack.api}/api/v1/credits", stack.demo_key)[0] == 200


def test_nothing_outlives_a_killed_supervisor(make_stack: Callable[[], RunningStack]) -> None:
    stack = make_stack()
    stack.up()
    children, key = children_of(stack), stack.demo_key
    assert len(children) >= len(COMPONENTS)
    os.kill(stack.supervisor_pid, signal.SIGKILL)
    assert stack.run("status").returncode == 3
    wait_until(lambda: all(map(is_gone, children)), "all children are gone")
    stack.up()
    assert stack.demo_key == key
    assert ask(f"{stack.api}/api/v1/credits", key)[0] == 200
    processes = [psutil.Process(stack.supervisor_pid), *children_of(stack)]
    stack.down()
    assert all(map(is_gone, processes))


def test_a_port_in_use_is_one_sentence(make_stack: Callable[[], RunningStack]) -> None:
    stack = make_stack()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(stack.environment["TOLLKEEPER_PORT"])))
        taken.listen()
        outcome = stack.run("up", "--detach")
    assert outcome.returncode == 1
    assert "is in use by another program; set TOLLKEEPER_PORT" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_another_master_key_is_one_sentence(make_stack: Callable[[], RunningStack]) -> None:
    stack = make_stack()
    stack.up()
    stack.down()
    master_key = stack.home / "master.key"
    kept = master_key.read_text()
    master_key.write_text("0" * 64 + "\n")
    refused = stack.run("up", "--detach")
    assert refused.returncode == 1
    assert "sealed under another master key" in refused.stderr
    assert "Traceback" not in refused.stderr
    master_key.write_text(kept)
    stack.up()
