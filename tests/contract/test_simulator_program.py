"""``python -m tollkeeper.simulator`` as a process: starts, ends with 0, keeps its bill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def ask(port: int) -> None:
    body = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer sk-or-any"},
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


@contextmanager
def program(port: int, bill: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tollkeeper.simulator"]
    command += ["--listen", f"127.0.0.1:{port}", "--bill", str(bill)]
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_KEY"}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the simulator did not start")


def test_it_ends_with_0_on_sigterm_and_goes_on_with_its_bill(tmp_path: Path) -> None:
    bill = tmp_path / "state" / "bill.jsonl"
    for rows in (1, 2):
        port = free_port()
        with program(port, bill) as child:
            wait_for(port, child)
            ask(port)
            child.send_signal(signal.SIGTERM)
            assert child.wait(STOP_TIMEOUT_S) == 0
        assert len(bill.read_text().splitlines()) == rows


def test_rows_outlive_a_kill(tmp_path: Path) -> None:
    bill, port = tmp_path / "bill.jsonl", free_port()
    with program(port, bill) as child:
        wait_for(port, child)
        ask(port)
        child.kill()
        child.wait(STOP_TIMEOUT_S)
    assert len(bill.read_text().splitlines()) == 1


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program(port, tmp_path / "bill.jsonl") as child:
            assert child.wait(START_TIMEOUT_S) == 1
            assert child.stderr is not None
            said = child.stderr.read().decode()
    assert said.startswith("The simulator cannot start: ")
    assert len(said.splitlines()) == 1
