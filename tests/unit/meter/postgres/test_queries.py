"""Every named query is used by a module, and every module that names one finds it."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter.postgres.pool import queries
from tests.paths import ROOT

PACKAGES = ("meter", "authz", "tollkeeper")


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def used_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Find the queries that a module looks up, each as its package and its name.

    Stores write `_QUERIES = queries("meter.room")` and `_QUERIES["name"]`, or both in one. Names
    are literals, so that the look-up can be found here and happens at import.
    """
    of_variable: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            package = package_of(node.value, {})
            for target in targets:
                if isinstance(target, ast.Name) and package is not None:
                    of_variable[target.id] = package
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            package = package_of(node.value, of_variable)
            if package is not None:
                assert isinstance(node.slice, ast.Constant), f"line {node.lineno}: no literal name"
                yield package, str(node.slice.value)


def package_of(node: ast.AST | None, of_variable: dict[str, str]) -> str | None:
    match node:
        case ast.Call(func=ast.Name(id="queries"), args=[ast.Constant(value=str(package))]):
            return package
        case ast.Name(id=name):
            return of_variable.get(name)
    return None


def all_used() -> set[tuple[str, str]]:
    trees = (ast.parse(module.read_text(encoding="utf-8")) for module in modules())
    return {used for tree in trees for used in used_in(tree)}


def all_written() -> set[tuple[str, str]]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("queries/*.sql")]
    return {(".".join(file.parent.parent.relative_to(ROOT).parts), file.stem) for file in files}


def test_every_query_is_used_and_every_use_has_its_query() -> None:
    written = all_written()
    assert len(written) > 100
    assert all_used() == written


@pytest.mark.parametrize("package", sorted({package for package, _ in all_written()}))
def test_the_queries_of_a_room_are_read(package: str) -> None:
    found = queries(package)
    assert {(package, name) for name in found} == {
        written for written in all_written() if written[0] == package
    }
    assert all(text.strip() for text in found.values())


def test_every_look_up_succeeds_at_import() -> None:
    for module in modules():
        if "queries(" in module.read_text(encoding="utf-8"):
            importlib.import_module(".".join(module.relative_to(ROOT).with_suffix("").parts))


def test_a_misspelt_name_fails_at_import() -> None:
    with pytest.raises(KeyError):
        queries("meter.ledger")["verify_nothing"]


def test_a_use_is_found_in_both_forms() -> None:
    text = (
        '_Q: Final = queries("meter.a")\n_ONE: Final = _Q["one"]\n_TWO = queries("meter.b")["two"]'
    )
    assert set(used_in(ast.parse(text))) == {("meter.a", "one"), ("meter.b", "two")}


def test_a_name_that_is_computed_is_refused() -> None:
    with pytest.raises(AssertionError, match="no literal name"):
        list(used_in(ast.parse('queries("meter.a")[f"verify_{name}"]')))
