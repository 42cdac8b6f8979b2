"""Runs coding agents, unmodified, on a task: write a file by a tool, then say so."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.admin import Admin, Customer
from tests.foreign.clients import npm_version
from tests.foreign.installing import node_modules, with_node

AGENT_TIMEOUT_S: Final = 240
MADE: Final = "made.txt"


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One agent's attempt: the task is complete when the file is there and the agent has spoken."""

    name: str
    version: str
    endpoint: str
    customer: Customer
    is_complete: bool
    said: str


def run_agents(admin: Admin) -> list[AgentRun]:
    """Let each agent do the task."""
    return [
        _run(admin, "@openai/codex", "responses", _codex),
        _run(admin, "@anthropic-ai/claude-code", "messages", _claude),
    ]


def _run(
    admin: Admin,
    package: str,
    endpoint: str,
    prepare: Callable[[Path, str, str], tuple[list[str], dict[str, str]]],
) -> AgentRun:
    customer = admin.open_account("50")
    modules = node_modules("agents")
    with tempfile.TemporaryDirectory(prefix="tk-agent-", dir="/tmp") as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        home.mkdir()
        work.mkdir()
        command, environment = prepare(home, admin.stack.gateway, customer.key)
        base = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "TERM": "dumb"}
        try:
            ended = subprocess.run(
                [str(modules / ".bin" / command[0]), *command[1:]],
                check=False,
                capture_output=True,
                text=True,
                cwd=work,
                env=with_node(base | environment),
                stdin=subprocess.DEVNULL,
                timeout=AGENT_TIMEOUT_S,
            )
            said = f"{ended.stdout}\n{ended.stderr}"
        except subprocess.TimeoutExpired as error:
            said = f"killed after {AGENT_TIMEOUT_S} s: {error.stdout!r} {error.stderr!r}"
        is_made = (work / MADE).is_file() and (work / MADE).read_text().strip() == "made"
    is_complete = is_made and "Simulated answer" in said
    return AgentRun(
        package, npm_version(modules, package), endpoint, customer, is_complete, said[-1_500:]
    )


def _codex(home: Path, gateway: str, key: str) -> tuple[list[str], dict[str, str]]:
    settings = home / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(
        f"""model = "openai/gpt-5-mini"
model_provider = "tollkeeper"
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.tollkeeper]
name = "Tollkeeper"
base_url = "{gateway}/v1"
env_key = "TOLLKEEPER_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
    )
    # Its versions call the tool of the shell by different names.
    shell = f"echo made > {MADE}"
    calls = {
        "exec_command": {"cmd": shell},
        "shell_command": {"command": shell},
        "shell": {"command": ["bash", "-c", shell]},
    }
    prompt = " ".join(f"{name} {json.dumps(given)}" for name, given in calls.items())
    command = ["codex", "exec", "--skip-git-repo-check", f"Please run {prompt}"]
    return command, {"CODEX_HOME": str(settings), "TOLLKEEPER_KEY": key}


def _claude(home: Path, gateway: str, key: str) -> tuple[list[str], dict[str, str]]:
    given = {"file_path": str(home.parent / "work" / MADE), "content": "made"}
    prompt = f"Please Write {json.dumps(given)}"
    command = ["claude", "-p", prompt, "--permission-mode", "acceptEdits"]
    model = "anthropic/claude-sonnet-4.5"
    return command, {
        "ANTHROPIC_BASE_URL": gateway,
        "ANTHROPIC_AUTH_TOKEN": key,
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
