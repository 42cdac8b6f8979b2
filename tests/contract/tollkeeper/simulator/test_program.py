"""``python -m tollkeeper.simulator`` as a process: starts, ends with 0, keeps its bill."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import pytest

from tests.patience import WAIT_S
from tollkeeper.stack.servers.ports import free_port


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
def program(port: int, bill: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tollkeeper.simulator"]
    command += ["--listen", f"127.0.0.1:{port}", "--bill", str(bill)]
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_KEY"}
    environment |= settings
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
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
            assert child.wait(WAIT_S) == 0
        assert len(bill.read_text().splitlines()) == rows


def test_rows_outlive_a_kill(tmp_path: Path) -> None:
    bill, port = tmp_path / "bill.jsonl", free_port()
    with program(port, bill) as child:
        wait_for(port, child)
        ask(port)
        child.kill()
        child.wait(WAIT_S)
    assert len(bill.read_text().splitlines()) == 1


class Webhook(BaseHTTPRequestHandler):
    """Keeps the spans that are posted to it."""

    spans: ClassVar[Queue[dict[str, Any]]] = Queue()

    def do_POST(self) -> None:
        """Take one payload in."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            self.spans.put(span)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base names it so
        """Nothing."""


@pytest.fixture
def webhook() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def get(port: int, path: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/api/v1/{path}"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer sk-or-any"})
    with urllib.request.urlopen(request) as response:
        found: dict[str, Any] = json.loads(response.read(), parse_float=Decimal)["data"]
        return found


def test_a_kill_takes_back_neither_record_nor_report(tmp_path: Path, webhook: str) -> None:
    bill, port = tmp_path / "bill.jsonl", free_port()
    with program(port, bill, SIMULATOR_BROADCAST_URL=webhook) as child:
        wait_for(port, child)
        ask(port)
        child.kill()
        child.wait(WAIT_S)
    row = json.loads(bill.read_text())
    with bill.open("a") as lines:
        lines.write('{"generation_id":"gen-half')
    port = free_port()
    settings = {"SIMULATOR_BROADCAST_URL": webhook, "SIMULATOR_BROADCAST_DELAY_MS": "0"}
    with program(port, bill, **settings) as child:
        wait_for(port, child)
        span = Webhook.spans.get(timeout=WAIT_S)
        record = get(port, f"generation?id={row['generation_id']}")
        total = get(port, "key")["usage"]
    reported = {one["key"]: one["value"] for one in span["attributes"]}
    assert reported["gen_ai.response.id"] == {"stringValue": row["generation_id"]}
    assert record["total_cost"] == total == Decimal(row["cost"])
    assert record["native_tokens_completion"] == row["completion_tokens"]


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program(port, tmp_path / "bill.jsonl") as child:
            assert child.wait(WAIT_S) == 1
            assert child.stderr is not None
            said = child.stderr.read().decode()
    assert said.startswith("The simulator cannot start: ")
    assert len(said.splitlines()) == 1
