"""The root of the command line: what it imports, and what its help says."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from tollkeeper.cli import ENTRIES, build

# What makes a command slow to start: clients of servers, web frameworks, tables.
HEAVY = {"aiohttp", "asyncpg", "fastapi", "grpc", "pydantic", "redis", "rich", "structlog", "yaml"}


def imported_by(*arguments: str) -> set[str]:
    script = (
        "import sys; from tollkeeper.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        'print("\\nIMPORTED", *{name.partition(".")[0] for name in sys.modules})'
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--version",), ()])
def test_help_and_version_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not HEAVY & imported_by(*arguments)


def test_a_command_imports_no_servers_clients() -> None:
    assert not {"aiohttp", "asyncpg", "fastapi", "grpc"} & imported_by("users", "--help")


def test_every_command_has_the_same_name_with_all_and_alone() -> None:
    whole = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    assert set(whole) == set(ENTRIES)
    for name, entry in ENTRIES.items():
        alone = typer.main.get_command(build(name)).commands  # type: ignore[attr-defined]
        assert set(alone) == set(ENTRIES)
        assert alone[name].help == whole[name].help
        assert entry.help.endswith(".")


def test_the_version_is_printed() -> None:
    done = CliRunner().invoke(build(""), ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("tollkeeper ")


def test_an_unknown_command_is_named() -> None:
    done = CliRunner().invoke(build("nonsense"), ["nonsense"])
    assert done.exit_code == 2
    assert "nonsense" in done.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("tollkeeper")],
        env={"_TOLLKEEPER_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_TOLLKEEPER_COMPLETE" in done.stdout
