"""The command line against a meter that this test starts: real process, real Postgres."""

import json
import os
import pty
import secrets
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.books import offered
from tests.patience import WAIT_S
from tollkeeper.stack.servers.ports import free_port
from tollkeeper.stack.servers.postgres import PostgresServer
from tollkeeper.stack.supervision.children import die_with_parent


@dataclass(frozen=True)
class Cli:
    """Runs `tollkeeper ARGUMENTS` with an environment that finds the meter."""

    environment: dict[str, str] = field(repr=False)

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """As in a script: neither stdin nor stdout is a terminal."""
        return subprocess.run(
            [sys.executable, "-m", "tollkeeper", *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=given,
            env=self.environment,
            timeout=WAIT_S,
        )

    def json(self, *arguments: str) -> Any:
        """Return the output of a command that must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def at_terminal(self, *arguments: str) -> str:
        """Return the text that a person sees."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "tollkeeper", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
            env={**self.environment, "COLUMNS": "200", "TERM": "xterm"},
        ) as child:
            os.close(theirs)
            seen = _read_all(ours)
            child.wait(WAIT_S)
        os.close(ours)
        return seen


def _read_all(descriptor: int) -> str:
    seen = b""
    while select.select([descriptor], [], [], WAIT_S)[0]:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux says so when the other end of a terminal is closed.
            break
        if not part:
            break
        seen += part
    return seen.decode()


@pytest.fixture(scope="module")
def cli(
    migrated_template: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    """The command line and a meter with a small catalogue, for all tests of this module."""
    database = servers.run_in_thread(lambda: servers.clone_template(migrated_template))
    servers.run_in_thread(lambda: _fill_catalogue(database.service_dsn))
    home = tmp_path_factory.mktemp("home")
    port = free_port()
    (home / "master.key").write_text(secrets.token_hex(32))
    (home / "operator.token").write_text(secrets.token_urlsafe(32))
    meter = subprocess.Popen(
        [sys.executable, "-m", "meter"],
        stdin=subprocess.DEVNULL,
        stdout=(home / "meter.log").open("wb"),
        stderr=subprocess.STDOUT,
        env=_meter_environment(database, home, port),
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        _wait_until_ready(meter, port, home / "meter.log")
        yield Cli(_cli_environment(home, port))
    finally:
        meter.terminate()
        meter.wait(WAIT_S)
        servers.run_in_thread(lambda: servers.drop(migrated_template, database))


async def _fill_catalogue(dsn: str) -> None:
    from meter.postgres.pool import open_pool
    from meter.pricing.catalogue_store import PostgresCatalogue

    pool = await open_pool(dsn, 1)
    await PostgresCatalogue(pool).save("openrouter", [offered(), offered("acme/free", 0)])
    await pool.close()


def _meter_environment(database: servers.Database, home: Path, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "TOLLKEEPER_DATABASE_URL": database.service_dsn,
        "TOLLKEEPER_MASTER_KEY_FILE": str(home / "master.key"),
        "TOLLKEEPER_OPERATOR_TOKEN_FILE": str(home / "operator.token"),
        "TOLLKEEPER_PROVIDER_BASE_URL": "http://127.0.0.1:9/api/v1",
        "TOLLKEEPER_METER_LISTEN": f"127.0.0.1:{port}",
        "TOLLKEEPER_INGEST_LISTEN": f"127.0.0.1:{free_port()}",
    }


def _cli_environment(home: Path, port: int) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TOLLKEEPER_")
    }
    # A proxy that does not exist proves that none is used.
    return {
        **inherited,
        "http_proxy": "http://127.0.0.1:9",
        "TOLLKEEPER_HOME": str(home),
        "TOLLKEEPER_API_PORT": str(port),
    }


def _wait_until_ready(meter: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and meter.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=WAIT_S):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.1)
    raise RuntimeError(f"the meter did not start:\n{log.read_text()}")


def test_users_are_made_found_changed_and_suspended(cli: Cli) -> None:
    made = cli.json("users", "create", "ada@example.com", "--id", "ada", "--name", "Ada")
    assert (made["id"], made["name"], made["available"]) == ("ada", "Ada", "0.00")
    assert cli.json("users", "show", "ada") == made
    assert [user["id"] for user in cli.json("users", "list", "--email", "ADA@example.com")] == [
        "ada"
    ]
    assert cli.json("users", "change", "ada", "--markup-bps", "4000")["markup_bps"] == 4000
    assert cli.json("users", "change", "ada", "--plan-markup")["markup_bps"] is None
    assert cli.json("users", "suspend", "ada")["is_suspended"] is True
    assert cli.json("users", "resume", "ada")["is_suspended"] is False


def test_a_key_is_shown_once(cli: Cli) -> None:
    cli.json("users", "create", "kim@example.com", "--id", "kim")
    made = cli.json("keys", "create", "kim", "--name", "app", "--model", "openai/*")
    assert made["key"].startswith("tk-")
    listed = cli.run("keys", "list", "kim")
    assert made["key"] not in listed.stdout
    (key,) = json.loads(listed.stdout)
    assert (key["id"], key["allowed_models"]) == (made["id"], ["openai/*"])
    assert cli.run("keys", "revoke", "kim", made["id"]).returncode == 0
    assert cli.json("keys", "list", "kim")[0]["revoked_at"] is not None
    unknown = cli.run("keys", "revoke", "kim", "aaaaaaaaaaaaaaaa")
    assert (unknown.returncode, unknown.stdout) == (1, "")


def test_a_key_is_changed_rotated_and_reported(cli: Cli) -> None:
    cli.json("users", "create", "lee@example.com", "--id", "lee")
    terms = ("--budget", "day=5", "--address", "10.0.0.0/8", "--tag", "team=search")
    made = cli.json("keys", "create", "lee", "--scope", "inference", *terms, "--model", "no/such")
    assert (made["scopes"], made["budgets"]["day"]) == (["inference"], "5.00")
    assert len(made["warnings"]) == 1
    free = ("--budget", "day=none", "--address", "none", "--requests-per-minute", "9")
    changed = cli.json("keys", "change", "lee", made["id"], *free)
    assert (changed["budgets"]["day"], changed["allowed_addresses"]) == (None, None)
    assert (changed["limits"]["requests_per_minute"], changed["tags"]) == (9, {"team": "search"})
    rotated = cli.json("keys", "rotate", "lee", made["id"], "--overlap-s", "60")
    assert (rotated["id"], rotated["key"] == made["key"]) == (made["id"], False)
    reported = cli.run("keys", "report-leak", given=made["key"] + "\n")
    assert (reported.returncode, reported.stdout) == (0, "")
    (key,) = cli.json("keys", "list", "lee", "--status", "revoked", "--tag", "team")
    assert key["id"] == made["id"]
    told = cli.json("audit", "--user", "lee", "--action", "key.")
    verbs = [line["action"] for line in told]
    assert verbs == ["key.leak_reported", "key.rotated", "key.changed", "key.created"]


def test_limits_of_users_and_rules_are_set(cli: Cli) -> None:
    cli.json("users", "create", "moe@example.com", "--id", "moe")
    terms = ("--requests-per-minute", "9", "--may-not-manage-keys")
    user = cli.json("users", "change", "moe", *terms)
    assert (user["requests_per_minute"], user["may_manage_keys"]) == (9, False)
    rules = ("--user", "moe", "--model", "openai/*", "--tokens-per-minute", "5000", "--shadow")
    rule = cli.json("limits", "set", "moes", *rules)
    assert (rule["applies_to"], rule["applies_id"], rule["is_shadow"]) == ("user", "moe", True)
    assert cli.json("limits") == [rule]
    assert cli.run("limits", "remove", "moes").returncode == 0


def test_credit_is_given_and_taken_back(cli: Cli) -> None:
    cli.json("users", "create", "cay@example.com", "--id", "cay")
    terms = ("--reason", "a test", "--idempotency-key", "k1")
    for _ in range(2):
        assert cli.json("credits", "add", "cay", "5.00", *terms)["balance"] == "5.00"
    taken = cli.json("credits", "add", "cay", "-1.25", "--reason", "back")
    assert (taken["type"], taken["balance"]) == ("adjustment", "3.75")
    assert cli.json("credits", "show", "cay")["available"] == "3.75"
    refused = cli.run("credits", "add", "cay", "-10", "--reason", "too much")
    assert refused.returncode == 1
    assert "3.75 USD is available" in refused.stderr
    reasons = [row["reason"] for row in cli.json("transactions", "cay")]
    assert reasons == ["back", "a test"]
    assert cli.json("usage", "cay", "--by", "model") == []


def test_models_plans_and_providers_are_shown(cli: Cli) -> None:
    assert [one["id"] for one in cli.json("models", "gpt")] == ["openai/gpt-test"]
    seen = cli.at_terminal("models")
    assert "acme/free" in seen
    assert "0.150000" in seen
    plan = cli.json("plans", "set", "gold", "--name", "Gold", "--markup-bps", "6000")
    assert plan in cli.json("plans", "list")


def test_a_provider_key_is_read_from_standard_input_only(cli: Cli) -> None:
    assert "KEY" not in cli.run("providers", "set-key", "--help").stdout.replace("OPTIONS", "")
    empty = cli.run("providers", "set-key", "openrouter")
    assert (empty.returncode, empty.stdout) == (1, "")
    secret = "sk-or-v1-planted-provider-secret-0123456789"
    untried = cli.run("providers", "set-key", "openrouter", given=secret + "\n")
    assert untried.returncode == 1
    assert "could not be asked" in untried.stderr
    done = cli.run("providers", "set-key", "openrouter", "--force", given=secret + "\n")
    assert done.returncode == 0, done.stderr
    shown = cli.run("providers")
    assert json.loads(shown.stdout)[0]["key"]["hint"] == "...6789"
    for text in (
        untried.stderr,
        done.stdout,
        done.stderr,
        shown.stdout,
        cli.at_terminal("providers", "list"),
    ):
        assert secret not in text


def test_the_ledger_is_verified(cli: Cli) -> None:
    assert cli.json("ledger", "verify")["ok"] is True
    seen = cli.at_terminal("ledger", "verify")
    assert "the books agree" in seen
    assert " ms" in seen
    head = cli.json("ledger", "verify")["head"]
    assert f"{head['number']} {head['hash']}" in seen


def test_books_are_reconciled_and_the_report_is_kept(cli: Cli) -> None:
    report = cli.json("reconcile")
    assert report["ok"] is True
    assert report["provider"] is None
    seen = cli.at_terminal("reconcile", "--new-baseline")
    assert "the books agree" in seen
    assert "not compared" in seen
    kept = cli.json("reconciliations")
    assert report in kept
    assert len(kept) >= 2
    assert "none" in cli.at_terminal("reconciliations")


def test_what_people_look_after_is_listed(cli: Cli) -> None:
    summary = cli.json("holds", "summary")
    assert (summary["open"], summary["lookups"]["waiting"]) == (0, 0)
    assert "lookups" in cli.at_terminal("holds", "summary")
    for empty in (("holds", "list"), ("holds", "policy"), ("ledger", "conflicts")):
        assert cli.json(*empty) == []
    assert cli.json("holds", "list", "--state", "unknown") == []
    months = cli.json("ledger", "months")
    assert {row["kind"] for row in months if row["is_kept"]} == {"usage", "ledger"}
    assert months[0]["month"] in cli.at_terminal("ledger", "months")


def test_users_are_shown_as_blocked_or_not(cli: Cli) -> None:
    made = cli.json("users", "create", "neg@example.com")
    assert (made["is_blocked"], made["overdrawn"]) == (False, "0.00")
    seen = cli.at_terminal("users", "list")
    assert "is blocked" in seen
    assert "overdrawn" in seen


def test_a_terminal_gets_tables_and_acts_on_nothing_in_them(cli: Cli) -> None:
    cli.json("users", "create", "eve@example.com", "--name", "[red]Eve[/red] \u202e")
    seen = cli.at_terminal("users", "list")
    assert "[red]Eve[/red] \ufffd" in seen
    assert not seen.lstrip().startswith("[{")
    assert json.loads(cli.at_terminal("users", "list", "--json"))


def test_what_cannot_be_done_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    wrong = {**cli.environment, "TOLLKEEPER_OPERATOR_TOKEN": "wrong-token"}
    fresh = {**cli.environment, "TOLLKEEPER_HOME": str(tmp_path / "none")}
    for asked, arguments, expected in (
        (cli, ("users", "show", "nobody"), "There is no user 'nobody'."),
        (cli, ("users", "show", "../../etc"), "There is no such"),
        (cli, ("users", "list", "--api", nowhere), "start it with `make up`"),
        (cli, ("users", "list", "--api", "ftp://x"), "http://"),
        (Cli(wrong), ("users", "list"), "does not accept the operator token"),
        (Cli(fresh), ("users", "list"), "start it with `make up`"),
    ):
        done = asked.run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert "wrong-token" not in done.stderr
        assert done.stderr.count("\n") == 1
