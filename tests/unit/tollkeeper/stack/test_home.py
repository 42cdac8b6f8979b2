"""A state folder is made whole, or refused in one sentence."""

import os
import stat
from pathlib import Path

import pytest

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.home import (
    MAX_SOCKET_PATH_BYTES,
    Home,
    find_supervisor,
    locate,
    open_home,
    read_operator_token,
    sole_supervisor,
    write_private,
)
from tollkeeper.stack.settings import StackSettings
from tollkeeper.stack.supervision.status import find_status


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return locate(tmp_path / "state")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_private(home: Home) -> None:
    open_home(home)
    before = (home.master_key.read_text(), home.operator_token.read_text())
    open_home(home)
    assert (home.master_key.read_text(), home.operator_token.read_text()) == before
    assert len(bytes.fromhex(before[0])) == 32
    assert mode(home.root) == 0o700
    assert mode(home.run) == 0o700
    assert mode(home.master_key) == mode(home.operator_token) == 0o600


def test_sockets_move_out_of_a_long_path(tmp_path: Path) -> None:
    deep = locate(tmp_path / ("x" * 90))
    assert deep.root not in deep.run.parents
    assert len(str(deep.run / "pg" / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH_BYTES
    assert locate(tmp_path / ("y" * 90)).run != deep.run


def test_a_file_is_no_state_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(StackError, match="is not a folder"):
        open_home(locate(path))


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be used"):
        open_home(locate(tmp_path / "file" / "state"))


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o755)
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(StackError, match="holds other things"):
        open_home(locate(folder))
    assert mode(folder) == 0o755
    assert [entry.name for entry in folder.iterdir()] == ["letter.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(home: Home) -> None:
    home.root.mkdir(mode=0o500)
    with pytest.raises(StackError, match="cannot be"):
        open_home(home)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_looking_into_a_folder_of_somebody_else_is_one_sentence(home: Home) -> None:
    home.root.mkdir(mode=0)
    with pytest.raises(StackError, match="cannot be read: Permission denied"):
        find_supervisor(home)
    with pytest.raises(StackError, match="cannot be read: Permission denied"):
        read_operator_token(StackSettings().operator_token, home)
    assert find_status(home.status) is None


def test_looking_into_a_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(StackError, match="cannot be read: Not a directory"):
        find_supervisor(locate(path))
    with pytest.raises(StackError, match="cannot be read: Not a directory"):
        read_operator_token(StackSettings().operator_token, locate(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_somebody_else_is_refused(home: Home) -> None:
    open_home(home)
    os.chown(home.root, 65534, 65534)
    with pytest.raises(StackError, match="not to you"):
        open_home(home)


def test_a_database_without_its_master_key_is_refused(home: Home) -> None:
    open_home(home)
    home.postgres.mkdir()
    (home.postgres / "PG_VERSION").write_text("18\n")
    home.master_key.unlink()
    with pytest.raises(StackError, match=r"master\.key is missing"):
        open_home(home)
    assert not home.master_key.exists()


def test_a_broken_master_key_is_refused_and_not_shown(home: Home) -> None:
    open_home(home)
    write_private(home.master_key, "deadbeef")
    with pytest.raises(StackError, match="64 hexadecimal digits") as refusal:
        open_home(home)
    assert "deadbeef" not in str(refusal.value)


def test_a_newer_layout_is_refused(home: Home) -> None:
    open_home(home)
    (home.root / "tollkeeper-home").write_text("2\n")
    with pytest.raises(StackError, match="layout '2'"):
        open_home(home)


def test_there_is_one_supervisor_at_a_time(home: Home) -> None:
    open_home(home)
    assert find_supervisor(home) is None
    with sole_supervisor(home):
        assert find_supervisor(home) == os.getpid()
        with pytest.raises(StackError, match=rf"process {os.getpid()}"), sole_supervisor(home):
            pass
    assert find_supervisor(home) is None
