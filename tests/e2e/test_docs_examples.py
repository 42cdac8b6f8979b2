"""The examples of the documents for applications do what the text around them says.

They are taken out of the Markdown and run, in order, against the shared stack: blocks of `sh` by
bash, each with what the ones before exported; all blocks of `python` as one program;
`js` by node, where there is one. What stands for an address or a key is put in its place.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.admin import MODEL, Admin, Customer
from tests.e2e.raw_http import send_json
from tests.paths import ROOT
from tests.patience import WAIT_S

PAGES = ("README.md", "docs/quickstart.md", "docs/authentication.md", "docs/troubleshooting.md")
# Starting and administering a stack is shown by tests of the command line.
OF_ADMINISTRATORS = re.compile(
    r"^(?:\S+=\S+ )*(?:make|alias|tollkeeper (?:credits|usage)) ", re.MULTILINE
)
BLOCK = re.compile(r"^```(sh|python|js)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8080"
KEY = "tk-..."
SCOPES = ["inference", "models:read", "usage:read", "keys:write"]
LIMITS = {"requests_per_minute": 600, "tokens_per_minute": 1_000_000}
STRICT = "set -euo pipefail\nsource exported\n"
# A refusal fails an example that does not promise it.
NO_REFUSALS = 'curl() { command curl --fail-with-body -sS "$@"; }\n'
PASS_LIFETIME_S = 300


@dataclass(frozen=True, slots=True)
class Example:
    """A block of a page, and the line that it begins on."""

    page: str
    line: int
    language: str
    text: str

    @property
    def is_for_the_library(self) -> bool:
        """True if it needs the npm package `openai`."""
        return 'from "openai"' in self.text


def examples(*languages: str) -> Iterator[Example]:
    """All blocks in one of these languages, in order."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        for found in BLOCK.finditer(text):
            if found[1] in languages and not OF_ADMINISTRATORS.search(found[2]):
                line = text.count("\n", 0, found.start()) + 1
                yield Example(page, line, found[1], found[2])


@dataclass
class Reader:
    """A reader who tries the examples of a page in a folder, with a key of their own."""

    admin: Admin
    customer: Customer
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that the first block of the quick start exports."""
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {
            **self.admin.stack.environment,
            "PATH": tools,
            "OPENAI_BASE_URL": f"{self.admin.stack.gateway}/v1",
            "OPENAI_API_KEY": self.customer.key,
            "TOLLKEEPER_URL": self.admin.stack.gateway,
        }

    def put_in(self, text: str) -> str:
        """The text with the address and the key of this stack."""
        return text.replace(ADDRESS, self.admin.stack.gateway).replace(KEY, self.customer.key)

    def run(self, *command: str, **variables: str) -> str:
        """Return the output of a program; it must succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def reader(admin: Admin, tmp_path: Path) -> Reader:
    customer = admin.open_account(key={"scopes": SCOPES})
    admin.call("PATCH", f"users/{customer.id}", LIMITS)
    return Reader(admin, customer, tmp_path)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_shell_examples_run(reader: Reader, page: str) -> None:
    kept = reader.folder / "exported"
    kept.touch()
    for example in examples("sh"):
        if example.page != page:
            continue
        script = reader.folder / "example.sh"
        text, promised = reader.put_in(example.text), re.match(r"prints `(\w+)`", after(example))
        prelude = STRICT if promised else STRICT + NO_REFUSALS
        # Exported is what the next block starts with, as in one terminal.
        script.write_text(f"{prelude}{text}\nexport -p > exported\n")
        printed = reader.run("bash", "example.sh")
        assert printed or "export" in text, f"{page}:{example.line} printed nothing"
        assert promised is None or printed.strip() == promised[1], f"{page}:{example.line}"


def after(example: Example) -> str:
    """The line of text that follows a block."""
    lines = (ROOT / example.page).read_text().splitlines()
    return lines[example.line + example.text.count("\n") + 1]


def test_python_examples_run(reader: Reader) -> None:
    found = list(examples("python"))
    program = reader.folder / "examples.py"
    program.write_text("".join(example.text for example in found))
    printed = reader.run(sys.executable, "-W", "error::DeprecationWarning", "examples.py")
    assert "requests are left of this minute's" in printed
    assert "None requests" not in printed
    assert "404 model_not_found do not" in printed
    assert "('day', '0.50')" in printed
    reader.admin.wait_settled(reader.customer)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_examples_run_where_they_need_no_package(reader: Reader) -> None:
    made = exchange(reader)
    for number, example in enumerate(examples("js")):
        file = f"example-{number}.mjs"
        (reader.folder / file).write_text(reader.put_in(example.text))
        if example.is_for_the_library:
            reader.run("node", "--check", file)
        else:
            printed = reader.run("node", file, PASS=made)
            assert printed.strip(), f"{example.page}:{example.line} printed nothing"


def exchange(reader: Reader) -> str:
    """A pass as the backend of the quick start makes it."""
    order = {"expires_in_s": PASS_LIFETIME_S, "scopes": ["inference"], "allowed_models": [MODEL]}
    path = "/api/v1/auth/token"
    reply = send_json(reader.admin.stack.gateway, "POST", path, order, [reader.customer.bearer])
    assert reply.status in (200, 201), reply.body
    return str(json.loads(reply.body)["access_token"])


def test_every_page_has_examples() -> None:
    pages = {example.page for example in examples("sh", "python", "js")}
    assert pages == set(PAGES)
