"""The documents say what the code does: codes, settings, metrics, events, commands and links."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from authz.decision import OutageKind, Reason
from authz.settings import Settings as AuthzSettings
from meter.identity.jwt_settings import JwtSettings
from meter.settings import MeterSettings, MigrationSettings
from tests.paths import ROOT
from tollkeeper.cli import build
from tollkeeper.commands.envoy import EnvoySettings
from tollkeeper.commands.health import HealthSettings
from tollkeeper.simulator.settings import SimulatorSettings
from tollkeeper.simulator.stripe.settings import StripeSimulatorSettings
from tollkeeper.stack.settings import StackSettings

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
    r"(?<![\w./-])((?:authz|meter|tollkeeper|envoy|tests|deploy|bench|chaos|docs)/"
    r"[\w./*-]+\.(?:py|md|sql|lua|yaml|yml|json|conf|toml))\b"
)
NAMED_FOLDER = re.compile(r"`((?:authz|meter|tollkeeper|tests|deploy|bench|chaos)/[\w./-]*)/`")
NAMED_FILE = re.compile(r"`(\w+\.(?:py|sql|lua))`")
FOLDERS = ("docs", *PACKAGES, "envoy", "bench", "chaos")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for paths in (ROOT.glob("*.md"), *((ROOT / folder).rglob("*.md") for folder in FOLDERS))
    for path in paths
)
# In a decision record only the paths of files follow the code, not what it says of folders.
LIVING_DOCUMENTS = [name for name in DOCUMENTS if not re.match(r"docs/adr/\d", name)]


def read(name: str) -> str:
    """The text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def sources() -> dict[Path, str]:
    """The Python files of the three packages."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {file: file.read_text(encoding="utf-8") for file in files}


@cache
def file_names() -> set[str]:
    """Return the names of all files of the repository that are not installed ones."""
    folders = (*PACKAGES, "envoy", "tests", "bench", "chaos", "deploy")
    return {file.name for folder in folders for file in (ROOT / folder).rglob("*.*")}


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


# Every settings class, by the name that docs/settings.md has for what reads it.
READERS: dict[str, type[BaseSettings]] = {
    "authz": AuthzSettings,
    "meter": MeterSettings,
    "migrate": MigrationSettings,
    "tollkeeper": StackSettings,
    "envoy": EnvoySettings,
    "health": HealthSettings,
    "simulator": SimulatorSettings,
    "stripe simulator": StripeSimulatorSettings,
}
# Options of commands that have a variable of their own, and one that is read without a class.
READ_WITHOUT_A_CLASS = {
    ("TOLLKEEPER_API_URL", "tollkeeper"): "the stack of this machine",
    ("TOLLKEEPER_AUTHZ_URL", "tollkeeper"): "the stack of this machine",
    ("TOLLKEEPER_LOG_FORMAT", "simulator"): "json",
}
UNITS = {
    "_MS": "ms",
    "_S": "s",
    "_SECONDS": "s",
    "_DAYS": "days",
    "_MONTHS": "months",
    "_BYTES": "bytes",
    "_TOKENS": "tokens",
    "_PER_S": "per second",
    "_PER_SECOND": "per second",
    "_CONNECTIONS": "connections",
    "_INSTANCES": "processes",
    "_WORKERS": "threads",
}


def listed_settings() -> dict[tuple[str, str], tuple[str, str]]:
    """Default and unit of each variable and reader in the tables of docs/settings.md."""
    listed: dict[tuple[str, str], tuple[str, str]] = {}
    for line in read("docs/settings.md").splitlines():
        if not re.match(r"\| `[A-Z]", line):
            continue
        variable, readers, default, unit, meaning = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        assert meaning, variable
        for reader in readers.split(", "):
            key = (variable.strip("`"), reader)
            assert key not in listed, f"{key} is listed twice"
            listed[key] = (default.strip("`"), unit)
    return listed


def settings_in_code() -> dict[tuple[str, str], str | None]:
    """Default of each variable and reader in the classes; None where the machine decides it."""
    found: dict[tuple[str, str], str | None] = dict(READ_WITHOUT_A_CLASS)
    for reader, settings in READERS.items():
        prefix = str(settings.model_config.get("env_prefix", ""))
        for name, field in settings.model_fields.items():
            found[variable_of(prefix, name, field), reader] = default_of(field)
    return found


def variable_of(prefix: str, name: str, field: FieldInfo) -> str:
    """Return the name of a field in the environment."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"{prefix}{name}".upper()


def default_of(field: FieldInfo) -> str | None:
    """Return the default of a field as docs/settings.md writes it."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return None
    value = field.default
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value < 1_000_000 else str(value)


def test_the_page_of_settings_has_every_settings_class() -> None:
    known = {*READERS.values(), JwtSettings}
    for file, text in sources().items():
        if not re.search(r"\((?:Base|Jwt)Settings\)", text):
            continue
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseSettings):
                assert value in known or value is BaseSettings, value


def test_every_setting_is_documented_and_none_is_invented() -> None:
    listed = {key for key in listed_settings() if key[1] != "compose"}
    assert listed == set(settings_in_code())


def test_every_default_is_documented_as_it_is() -> None:
    listed = listed_settings()
    for key, default in settings_in_code().items():
        assert listed[key][0] != "" if default is None else listed[key][0] == default, key


def test_every_setting_has_the_unit_that_its_name_says() -> None:
    for (variable, _), (_, unit) in listed_settings().items():
        said = [UNITS[end] for end in sorted(UNITS, key=len) if variable.endswith(end)]
        assert unit == (said[-1] if said else ""), variable


def test_the_variables_of_compose_are_documented() -> None:
    compose = read("docker-compose.yml")
    named = set(re.findall(r"\$\{(\w+)", compose))
    named |= set(re.findall(r"^ +(TOLLKEEPER_\w+):$", compose, re.MULTILINE))
    assert named == {variable for variable, reader in listed_settings() if reader == "compose"}


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    known = {variable for variable, _ in listed_settings()}
    literal = {name for text in sources().values() for name in LITERAL_SETTING.findall(text)}
    assert not literal - known
    for document in DOCUMENTS:
        named = set(re.findall(r"\b((?:TOLLKEEPER|SIMULATOR)_[A-Z_]*[A-Z])\b", read(document)))
        # The examples for applications keep the address of the gateway in a variable.
        assert not named - known - {"TOLLKEEPER_URL"}, document


def test_every_metric_is_explained() -> None:
    explained = read("docs/operations.md")
    names = [
        f"{name}_total" if kind == "Counter" else name
        for text in sources().values()
        for kind, name in METRIC.findall(text)
    ]
    assert names
    assert not [name for name in names if f"`{name}`" not in explained]


@pytest.mark.parametrize("letter", ["R", "V"])
def test_every_rule_and_invariant_that_is_named_is_stated(letter: str) -> None:
    rows = re.findall(rf"^\| ({letter}\d+) \|", read("docs/rules.md"), re.MULTILINE)
    folders = (*PACKAGES, "chaos", "docs", "envoy")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.*"))
    texts = (file.read_text() for file in files if file.suffix in {".py", ".md", ".sql", ".yaml"})
    named = {rule for text in texts for rule in re.findall(rf"\b{letter}\d{{1,2}}\b", text)}
    assert named
    assert named <= set(rows)
    assert rows == [f"{letter}{number}" for number in range(1, len(rows) + 1)]


def test_no_page_for_users_names_a_rule_by_its_number() -> None:
    may = re.compile(r"docs/(?:rules|adr/.*)\.md|chaos/README\.md|.*/ledger/README\.md")
    for document in DOCUMENTS:
        if not may.fullmatch(document):
            assert not re.findall(r"\b[RV]\d{1,2}\b", read(document)), document


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


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    for name in NAMED_PATH.findall(read(document)):
        assert list(ROOT.glob(name)), f"{document} names {name}"
    for name in NAMED_FOLDER.findall(read(document)) if document in LIVING_DOCUMENTS else ():
        assert (ROOT / name).is_dir(), f"{document} names {name}/"
    for name in NAMED_FILE.findall(read(document)):
        assert name in file_names(), f"{document} names {name}"


def test_every_decision_record_is_listed() -> None:
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", read("docs/adr/README.md")))
    assert listed == {path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as its viewers make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


RULE_NUMBER = re.compile(r"\b[RV]\d{1,2}\b")


def test_users_read_no_rule_numbers() -> None:
    """The numbers of rules are for docs/rules.md and for developers: users get the sentence."""
    pages = ["README.md", "openapi.json", *(name for name in DOCUMENTS if name.count("/") == 1)]
    pages = [name for name in pages if name.startswith(("docs/", "README", "openapi"))]
    found = [name for name in pages if name != "docs/rules.md" and RULE_NUMBER.search(read(name))]
    found += [str(file) for file, text in sources().items() if RULE_NUMBER.search(messages(text))]
    assert not found


def messages(source: str) -> str:
    """All string constants of a module but its docstrings."""
    nodes = list(ast.walk(ast.parse(source)))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    first = [node.body[0] for node in nodes if isinstance(node, documented) and node.body]
    docstrings = {id(node.value) for node in first if isinstance(node, ast.Expr)}
    constants = (node for node in nodes if isinstance(node, ast.Constant))
    texts = (node.value for node in constants if id(node) not in docstrings)
    return "\n".join(text for text in texts if isinstance(text, str))
