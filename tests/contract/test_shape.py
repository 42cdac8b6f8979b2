"""The shape of the code stays within the limits that `bench/shape.py` states."""

import re

import pytest

from bench.shape import (
    FOLDER_MODULES_MAX,
    LIMITS,
    PACKAGES,
    RELATIVE_OPENING,
    ROOT,
    SINGLE_PROTOCOLS,
    Shape,
    measure,
)

OTHERS = ("attacks", "bench", "chaos", "tests")
QUERIES = sorted(ROOT.glob("meter/**/queries/*.sql"))


@pytest.fixture(scope="module", params=PACKAGES)
def measured(request: pytest.FixtureRequest) -> tuple[str, Shape]:
    return request.param, measure(request.param)


def test_few_private_functions_are_used_once(measured: tuple[str, Shape]) -> None:
    package, shape = measured
    assert shape.used_once_percent <= LIMITS[package].used_once_percent, shape.used_once


def test_a_class_name_names_one_class(measured: tuple[str, Shape]) -> None:
    assert measured[1].repeated_classes == ()


def test_few_docstrings_open_with_a_relative_clause(measured: tuple[str, Shape]) -> None:
    package, shape = measured
    most = LIMITS[package].relative_docstrings
    assert len(shape.relative_docstrings) <= most, shape.relative_docstrings


def test_a_protocol_has_two_implementations_or_a_reason(measured: tuple[str, Shape]) -> None:
    assert set(measured[1].single_protocols) <= SINGLE_PROTOCOLS.keys()


def test_each_query_says_what_it_does() -> None:
    openings = {file: file.read_text().partition("\n")[0] for file in QUERIES}
    assert openings
    odd = {
        file.stem: line
        for file, line in openings.items()
        if not line.startswith("-- ") or RELATIVE_OPENING.match(line.removeprefix("-- "))
    }
    assert not odd, odd


def test_docstrings_of_tests_and_tools_open_alike() -> None:
    opening = re.compile(rf'^\s*"""{RELATIVE_OPENING.pattern}.*', re.MULTILINE)
    files = [file for folder in OTHERS for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    odd = {str(file): found[0] for file in files if (found := opening.search(file.read_text()))}
    assert not odd, odd


def test_no_folder_is_too_full(measured: tuple[str, Shape]) -> None:
    folder, modules = measured[1].full_folders[0]
    assert modules <= FOLDER_MODULES_MAX, folder


@pytest.mark.parametrize("text", ["What a key is.", "Whether it is over.", "Who may call."])
def test_a_relative_opening_is_noticed(text: str) -> None:
    assert RELATIVE_OPENING.match(text)


@pytest.mark.parametrize("text", ["Whole bodies only.", "Return what a key is.", "The key."])
def test_another_opening_is_not(text: str) -> None:
    assert not RELATIVE_OPENING.match(text)
