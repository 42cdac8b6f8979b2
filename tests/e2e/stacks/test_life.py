"""A running stack as a person lives with it: status, files, kills."""

import json
import stat

import pytest

from tests.e2e.running_stack import RunningStack

COMPONENTS = ["postgres", "redis", "simulator", "meter", "authz", "authz-bodies", "envoy"]


def test_everything_runs_and_says_so(stack: RunningStack) -> None:
    stack.wait_healthy()
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


def test_secrets_stay_private(stack: RunningStack) -> None:
    for name in ("master.key", "operator.token", "demo.key", "simulator/provider.key"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600, name
    secrets = [stack.operator_token, stack.demo_key]
    secrets += [(stack.home / name).read_text().strip() for name in ("master.key",)]
    secrets += [(stack.home / "simulator" / "provider.key").read_text().strip()]
    logs = b"".join(log.read_bytes() for log in (stack.home / "logs").iterdir())
    lines = " ".join(" ".join(child.cmdline()) for child in stack.children())
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
    stack.require_credits(stack.demo_key)
