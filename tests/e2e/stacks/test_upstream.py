"""A provider of one's own: its key reaches the books and nobody else."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.e2e.running_stack import RunningStack, wait_until
from tests.servers import run_in_thread
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.supervision.children import die_with_parent
from tollkeeper.stack.supervision.probes import answers_ok, http

KEY = "sk-or-planted-0123456789"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    """Some server that speaks like OpenRouter and accepts one key only."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tollkeeper.simulator", "--listen", address]
    server = subprocess.Popen(
        [*command, "--bill", str(tmp_path / "bill.jsonl")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"SIMULATOR_KEY": KEY},
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    url = f"http://{address}/api/v1"
    wait_until(lambda: run_in_thread(lambda: answers_ok(f"{url}/models")), "the upstream answers")
    yield url
    server.terminate()
    server.wait(20)


def test_a_given_key_is_used_and_kept_from_the_children(
    make_stack: Callable[[], RunningStack], upstream: str
) -> None:
    blank = make_stack()
    keys = {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": upstream}
    stack = replace(blank, environment={**blank.environment, **keys})
    stack.up()
    assert "simulator" not in stack.endpoints
    body = {
        "model": "openai/gpt-4o-mini",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    headers = {"Authorization": f"Bearer {stack.demo_key}"}
    url = f"{stack.gateway}/v1/chat/completions"
    answer = run_in_thread(lambda: http("POST", url, headers=headers, body=body, timeout_s=10))
    assert answer.status == 200, answer.body
    for child in psutil.Process(stack.supervisor_pid).children(recursive=True):
        assert KEY not in " ".join(child.cmdline())
        assert KEY not in child.environ().values()
    assert json.loads(stack.run("status", "--json").stdout)["is_healthy"]
    stack.down()
    # The write-ahead log of Postgres is among them.
    kept = [path for path in stack.home.rglob("*") if path.is_file()]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_a_provider_out_of_reach_is_named_at_the_first_start(
    make_stack: Callable[[], RunningStack],
) -> None:
    blank = make_stack()
    nobody = f"http://127.0.0.1:{free_port()}/api/v1"
    keys = {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": nobody}
    outcome = replace(blank, environment={**blank.environment, **keys}).run("up", "--detach")
    assert outcome.returncode == 1
    assert f"The provider at {nobody} has not given its list of models" in outcome.stderr
