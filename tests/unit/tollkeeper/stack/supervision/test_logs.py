"""Logs stay within their bound while somebody writes them."""

import os
from pathlib import Path

from tollkeeper.stack.supervision.logs import MAX_LOG_BYTES, bound, last_line, open_log


def test_a_log_that_grew_too_long_is_moved_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "meter.log"
    writer = open_log(path)
    os.write(writer, b"x" * MAX_LOG_BYTES + b"\nold\n")
    bound(path)
    os.write(writer, b"new\n")
    os.close(writer)
    assert path.read_text() == "new\n"
    assert last_line(tmp_path / "meter.log.1") == "old"


def test_a_short_log_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "meter.log"
    for text in (b"first\n", b"second\n\n"):
        writer = open_log(path)
        os.write(writer, text)
        os.close(writer)
    assert path.read_text() == "first\nsecond\n\n"
    assert last_line(path) == "second"
    assert last_line(tmp_path / "none.log") == "nothing"
