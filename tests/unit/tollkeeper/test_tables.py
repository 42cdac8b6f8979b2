"""Tables as people see them at a terminal of 80 columns, so that they can be copied."""

import json

import pytest

from tollkeeper.tables import show_one, show_rows, show_secret

SECRET = "tk-" + "a" * 66
PASS_ID = "J" * 22


def test_a_secret_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show_secret({"previous_secret_ends_at": None, "key": SECRET}, "key", as_json=False)
    assert SECRET in capsys.readouterr().out.splitlines()


def test_a_program_gets_a_secret_as_a_member(capsys: pytest.CaptureFixture[str]) -> None:
    show_secret({"key": SECRET}, "key", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"key": SECRET}


def test_times_say_that_they_are_of_utc(capsys: pytest.CaptureFixture[str]) -> None:
    show_one({"expires_at": "2030-01-31T12:00:00.000000Z"}, as_json=False)
    assert "2030-01-31 12:00Z" in capsys.readouterr().out


def test_what_commands_take_is_not_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"jti": PASS_ID, "scopes": ["inference", "models:read", "usage:read"], "by": "k" * 40}
    show_rows([row], ("jti", "scopes", "by"), as_json=False, empty="")
    assert PASS_ID in capsys.readouterr().out


def test_empty_columns_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "name": None, "tags": {}},
        {"id": "b", "name": None, "tags": {}},
    ]
    show_rows(rows, ("id", "name", "tags"), as_json=False, empty="")
    assert capsys.readouterr().out.split() == ["id", "a", "b"]


@pytest.mark.parametrize("words", [1, 30])
def test_no_word_is_broken(capsys: pytest.CaptureFixture[str], words: int) -> None:
    row = {f"column_{number}": f"{number}-" + "w" * 9 for number in range(words)}
    show_rows([row], tuple(row), as_json=False, empty="")
    shown = capsys.readouterr().out.split()
    assert set(row.values()) <= set(shown)


def test_the_secret_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    show_secret({"id": "a", "key": SECRET}, "key", as_json=False)
    assert capsys.readouterr().out.split()[0] == SECRET


def test_nothing_is_cut_however_narrow_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [f"a_rather_long_name_{number}" for number in range(9)]
    show_rows([dict.fromkeys(columns, "0.123456789")], columns, as_json=False, empty="")
    shown = "".join(capsys.readouterr().out.split())
    assert all(shown.count(digit) >= len(columns) for digit in "123456789")
