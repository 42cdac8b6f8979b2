"""Figures about the shape of the code, printed by `make shape`.

`measure()` reads the packages as text and imports nothing, so that it also works on broken code.
`tests/contract/test_shape.py` holds the figures below their limits.
"""

import ast
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("authz", "meter", "tollkeeper")
RELATIVE_OPENING: Final = re.compile(
    r"(What|Who|Whose|Whom|Where|Whether|Which|When|Why|How|Those|Nobody|Somebody|Whoever"
    r"|Everything that|As it)\b"
)

FOLDER_MODULES_MAX: Final = 20


class Limit(NamedTuple):
    """The most that `tests/contract/test_shape.py` lets a package have."""

    used_once_percent: float
    relative_docstrings: int


# A change may only bring these figures down.
LIMITS: Final = {
    "authz": Limit(15.0, 0),
    "meter": Limit(15.0, 0),
    "tollkeeper": Limit(15.0, 0),
}

# Protocols with one implementation, and why each is no name of a class.
SINGLE_PROTOCOLS: Final = {
    "IssuerStore": "meter.jwts must not import meter.identity",
    "OfAccount": "bounds a type variable",
    "PassKeys": "meter.jwts must not import meter.identity",
    "ProviderTotals": "meter.reconciliation must not import meter.providers",
    "Rules": "authz.limits must not import authz.catalogue",
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one package.

    `used_once` lists private functions and methods that one place refers to; `repeated_classes`
    class names that stand for more than one class; `relative_docstrings` docstrings that open
    with a relative clause; `full_folders` folders by the number of their modules, fullest first.
    """

    lines: int
    functions: int
    used_once: tuple[str, ...]
    repeated_classes: tuple[str, ...]
    docstrings: int
    relative_docstrings: tuple[str, ...]
    full_folders: tuple[tuple[str, int], ...]
    comments: int
    protocols: int
    single_protocols: tuple[str, ...]

    @property
    def used_once_percent(self) -> float:
        """Private functions that are used once, in percent of all functions."""
        return 100 * len(self.used_once) / max(1, self.functions)


def measure(package: str) -> Shape:
    """Return the shape of one of PACKAGES; generated modules (`*_pb2.py`) are left out."""
    trees = _trees(package)
    files, classes = list(trees), _classes(package)
    names = Counter(node.name for node in classes)
    functions, used_once = _functions(trees)
    docstrings = list(_docstrings(trees))
    protocols = {node.name: node for node in classes if "Protocol" in _bases(node)}
    everywhere = [node for name in PACKAGES for node in _classes(name)]
    implementations = {
        name: _implementations(node, everywhere, protocols) for name, node in protocols.items()
    }
    folders = Counter(str(file.parent.relative_to(ROOT)) for file in files)
    return Shape(
        lines=sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files),
        functions=functions,
        used_once=tuple(used_once),
        repeated_classes=tuple(sorted(name for name, count in names.items() if count > 1)),
        docstrings=len(docstrings),
        relative_docstrings=tuple(
            where for where, text in docstrings if RELATIVE_OPENING.match(text)
        ),
        full_folders=tuple(folders.most_common()),
        comments=sum(map(_comments, files)),
        protocols=len(protocols),
        single_protocols=tuple(sorted(n for n, found in implementations.items() if found < 2)),
    )


@cache
def _trees(package: str) -> dict[Path, ast.Module]:
    files = [file for file in sorted((ROOT / package).rglob("*.py")) if "_pb2" not in file.name]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _classes(package: str) -> list[ast.ClassDef]:
    nodes = (node for tree in _trees(package).values() for node in ast.walk(tree))
    return [node for node in nodes if isinstance(node, ast.ClassDef)]


def _functions(trees: dict[Path, ast.Module]) -> tuple[int, list[str]]:
    """Count all functions, and name the private ones that their module refers to once."""
    count, used_once = 0, []
    for file, tree in trees.items():
        references: dict[str, int] = defaultdict(int)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                references[node.id] += 1
            elif isinstance(node, ast.Attribute):
                references[node.attr] += 1
        for node in ast.walk(tree):
            if not isinstance(node, _Function):
                continue
            count += 1
            is_private = node.name.startswith("_") and not node.name.endswith("__")
            # What a decorator registers is called by its framework, not by its module.
            if is_private and not node.decorator_list and references[node.name] == 1:
                used_once.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    return count, used_once


def _docstrings(trees: dict[Path, ast.Module]) -> Iterator[tuple[str, str]]:
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | _Function):
                text = ast.get_docstring(node)
                if text:
                    line = getattr(node, "lineno", 1)
                    yield f"{file.relative_to(ROOT)}:{line} {text.splitlines()[0]}", text


def _bases(node: ast.ClassDef) -> set[str]:
    # asyncio.Protocol is a base class with behaviour, and no protocol of types.
    names = (ast.unparse(base).partition("[")[0] for base in node.bases)
    return {name.rsplit(".", 1)[-1] for name in names if name != "asyncio.Protocol"}


def _methods(node: ast.ClassDef) -> set[str]:
    return {item.name for item in node.body if isinstance(item, _Function)}


def _implementations(
    protocol: ast.ClassDef, classes: list[ast.ClassDef], protocols: dict[str, ast.ClassDef]
) -> int:
    """Count the classes, of all packages, that have all methods of a protocol."""
    wanted = _methods(protocol)
    return sum(wanted <= _methods(node) for node in classes if node.name not in protocols)


def _comments(file: Path) -> int:
    with file.open("rb") as source:
        return sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(source.readline))


def main() -> int:
    """Print the figures of each package; `--list` names what they count."""
    is_listing = "--list" in sys.argv[1:]
    for package in PACKAGES:
        shape = measure(package)
        folder, modules = shape.full_folders[0]
        helpers, relative = len(shape.used_once), len(shape.relative_docstrings)
        print(f"{package}: {shape.lines:,} lines, {shape.functions:,} functions")
        print(f"  private functions used once  {helpers:5} ({shape.used_once_percent:.1f} %)")
        print(f"  class names used twice       {len(shape.repeated_classes):5}")
        print(f"  relative docstrings          {relative:5} of {shape.docstrings:,}")
        print(f"  modules in the fullest folder{modules:6} ({folder})")
        print(f"  comments in 100 lines        {100 * shape.comments / shape.lines:7.1f}")
        print(f"  protocols                    {shape.protocols:5}")
        print(f"    with one implementation    {len(shape.single_protocols):5}")
        if is_listing:
            for title, rows in (
                ("used once", shape.used_once),
                ("used twice", shape.repeated_classes),
                ("relative", shape.relative_docstrings),
                ("one implementation", shape.single_protocols),
            ):
                for row in rows:
                    print(f"    {title}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
