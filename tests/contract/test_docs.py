"""The documents say what the code does: codes, settings, metrics, events, commands and links."""

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from authz.decision import OutageKind, Reason
from tests.paths import ROOT
from tollkeeper.cli import build

PACKAGES = ("authz", "meter", "tollkeeper")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHOWN_COMMAND = re.compile(
    r"(?:^|`|exec meter |bin/)tollkeeper ([a-z][a-z-]*)(?: ([a-z-]+))?", re.MULTILINE
)
LITERAL_SETTING = re.compile(r'"((?:TOLLKEEPER|OPENROUTER|SIMULATOR)_[A-Z_]*[A-Z])"')
EVENT = re.compile(r'_log\.(?:debug|info|warning|error|exception)\(\s*"(\w+)"')
METRIC = re.compile(r'(Counter|Gauge|Histogram)\(\s*"(tollkeeper_\w+)"')
NAMED_PATH = re.compile(
    r"`((?:authz|meter|tollkeeper|envoy|tests|deploy|bench|chaos)/[\w./-]+\.(?:py|md|sql|lua|yaml))`"
)
FOLDERS = ("docs", *PACKAGES, "envoy", "bench", "chaos")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for paths in (ROOT.glob("*.md"), *((ROOT / folder).rglob("*.md") for folder in FOLDERS))
    for path in paths
)
# A decision record is not edited when the code moves on.
LIVING_DOCUMENTS = [name for name in DOCUMENTS if not re.match(r"docs/adr/\d", name)]


def read(name: str) -> str:
    """The text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def sources() -> dict[Path, str]:
    """The Python files of the three packages."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {file: file.read_text(encoding="utf-8") for file in files}


def code_kinds() -> list[tuple[int, str]]:
    """Status and code of everything that the decision may say."""
    return [(one.value.status, one.value.code) for kinds in (Reason, OutageKind) for one in kinds]


@pytest.mark.parametrize(("status", "code"), code_kinds())
def test_every_code_of_the_decision_is_explained_with_its_status(status: int, code: str) -> None:
    assert re.search(rf"^\| {status} \| `{code}` \|", read("docs/errors.md"), re.MULTILINE)


def test_every_code_of_envoy_is_explained() -> None:
    codes = set(re.findall(r'"code": "(\w+)"', read("envoy/envoy.yaml")))
    explained = set(re.findall(r"`(\w+)`", read("docs/errors.md")))
    assert codes
    assert codes <= explained


def settings_variables() -> Iterator[str]:
    """The environment variables of every settings class."""
    for file, text in sources().items():
        if not re.search(r"\((?:Base|Jwt)Settings\)", text):
            continue
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseSettings):
                prefix = str(value.model_config.get("env_prefix", ""))
                for name, field in value.model_fields.items():
                    yield variable_of(prefix, name, field)


def variable_of(prefix: str, name: str, field: FieldInfo) -> str:
    """How a field is named in the environment."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"{prefix}{name}".upper()


def test_every_setting_is_documented() -> None:
    tables = read("README.md") + read("docs/operations.md")
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", tables))
    literal = {name for text in sources().values() for name in LITERAL_SETTING.findall(text)}
    assert not (set(settings_variables()) | literal) - documented


def test_no_setting_is_documented_that_is_not_read() -> None:
    tables = read("README.md") + read("docs/operations.md")
    named = set(re.findall(r"`(TOLLKEEPER_[A-Z_]+)`", tables)) | set(
        re.findall(r"`(SIMULATOR_[A-Z_]+)`", tables)
    )
    elsewhere = {"TOLLKEEPER_API_URL", "TOLLKEEPER_AUTHZ_URL"} | set(
        re.findall(r"TOLLKEEPER_[A-Z_]+", read("docker-compose.yml"))
    )
    assert not named - set(settings_variables()) - elsewhere


def test_every_metric_is_explained() -> None:
    explained = read("docs/operations.md")
    names = [
        f"{name}_total" if kind == "Counter" else name
        for text in sources().values()
        for kind, name in METRIC.findall(text)
    ]
    assert names
    assert not [name for name in names if f"`{name}`" not in explained]


def test_every_rule_that_is_named_is_stated() -> None:
    stated = set(re.findall(r"^\| (R\d+) \|", read("docs/rules.md"), re.MULTILINE))
    folders = (*PACKAGES, "docs", "envoy")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.*"))
    texts = (file.read_text() for file in files if file.suffix in {".py", ".md", ".sql", ".yaml"})
    named = {rule for text in texts for rule in re.findall(r"\bR\d{1,2}\b", text)}
    assert named
    assert named <= stated


def test_every_log_event_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", read("docs/operations.md")))
    events = {event for text in sources().values() for event in EVENT.findall(text)}
    assert events
    assert not events - explained


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for document in DOCUMENTS:
        text = read(document)
        named = set(re.findall(r"`make ([a-z]+)", text)) | set(
            re.findall(r"^(?:\S+=\S+ )*make ([a-z]+)", text, re.MULTILINE)
        )
        assert named <= targets, document


def test_make_help_and_readme_name_every_target() -> None:
    makefile, readme = read("Makefile"), read("README.md")
    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        if target != "help":
            assert f'@echo "  make {target} ' in makefile
            assert f"`make {target}`" in readme


def commands() -> set[str]:
    """Every command of the command line, groups and theirs: `users`, `users create`."""
    root = typer.main.get_command(build())
    found: set[str] = set()
    for name, command in getattr(root, "commands", {}).items():
        found.add(name)
        found |= {f"{name} {inner}" for inner in getattr(command, "commands", {})}
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_is_shown_exists(document: str) -> None:
    known = commands()
    groups = {name.split()[0] for name in known if " " in name}
    shown = SHOWN_COMMAND.findall(read(document))
    for first, second in shown:
        assert first in known, f"tollkeeper {first}"
        if first in groups and second:
            assert f"{first} {second}" in known, f"tollkeeper {first} {second}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    for target in LINK.findall(FENCE.sub("", read(document))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize("document", LIVING_DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    for name in NAMED_PATH.findall(read(document)):
        assert (ROOT / name).exists(), name


def test_every_decision_record_is_listed() -> None:
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", read("docs/adr/README.md")))
    assert listed == {path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as its viewers make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
