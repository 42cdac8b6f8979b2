"""Lines of curl are read as curl sends them."""

import base64
from pathlib import Path

import pytest

from tollkeeper.curl_line import read_curl_line
from tollkeeper.errors import CommandError

FORM = ("content-type", "application/x-www-form-urlencoded")
JSON = ("content-type", "application/json")
BASIC = ("authorization", f"Basic {base64.b64encode(b'a:b').decode()}")


@pytest.mark.parametrize(
    ("line", "method", "path", "headers", "body"),
    [
        ("curl http://h/v1/models", "GET", "/v1/models", [], None),
        ("curl h:8080", "GET", "/", [], None),
        ("curl -sS -N --compressed h/a?b=c", "GET", "/a?b=c", [], None),
        ("curl -I h/a", "HEAD", "/a", [], None),
        ("curl -X DELETE h/a", "DELETE", "/a", [], None),
        ("curl --request PUT --url h/a", "PUT", "/a", [], None),
        ("curl -XPOST h/a", "POST", "/a", [], None),
        ("curl h/a -d x -d y", "POST", "/a", [FORM], b"x&y"),
        ("curl h/a --data-raw @x", "POST", "/a", [FORM], b"@x"),
        ("curl h/a --json '{\"a\":' --json 1}", "POST", "/a", [JSON], b'{"a":1}'),
        ("curl -G h/a -d x=1", "GET", "/a?x=1", [], None),
        ("curl -H 'A: b' -H 'C;' -H 'D:' h/a", "GET", "/a", [("A", "b"), ("C", "")], None),
        ("curl -H 'Content-Type:' -d x h/a", "POST", "/a", [], b"x"),
        ("curl -u a:b h/a", "GET", "/a", [BASIC], None),
        ("curl -u a:b -H 'Authorization: c' h/a", "GET", "/a", [("Authorization", "c")], None),
        ("curl --oauth2-bearer k h/a", "GET", "/a", [("authorization", "Bearer k")], None),
        ("curl -sd x h/a", "POST", "/a", [FORM], b"x"),
        ("curl h/a \\\n  -d '{\n}'", "POST", "/a", [FORM], b"{\n}"),
        ("curl $BASE/a -H \"K: $KEY\" -d '$KEY'", "POST", "/v1/a", [("K", 'q"u'), FORM], b"$KEY"),
        ("curl ${BASE%/v1}/a", "GET", "/a", [], None),
        ("curl h/a -d 'costs $5'", "POST", "/a", [FORM], b"costs $5"),
    ],
)
def test_reads_a_line_as_curl_does(
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes | None,
) -> None:
    monkeypatch.setenv("BASE", "http://h:8080/v1")
    monkeypatch.setenv("KEY", 'q"u')
    found = read_curl_line(line)
    assert (found.method, found.path, found.body) == (method, path, body)
    assert found.headers == headers


def test_reads_bodies_from_files(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"{\r\n}\n")
    assert read_curl_line(f"curl h -d @{file}").body == b"{}"
    assert read_curl_line(f"curl h --data-binary @{file}").body == b"{\r\n}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("curl", "must have one URL"),
        ("curl a b", "must have one URL"),
        ("curl h -F a=b", "option -F is not supported"),
        ("curl h --form a=b", "option --form is not supported"),
        ("curl h -H", "-H needs a value"),
        ("curl h --data", "--data needs a value"),
        ("curl h 'open", "A shell could not read"),
        ("curl h -d @-", "cannot come from standard input"),
        ("curl h -d @/no/such/file", "cannot be read"),
        ('curl h -H "K: $NO_SUCH_VARIABLE"', "'NO_SUCH_VARIABLE', which is not set"),
        ("curl h -d $'a\\n'", "Text in"),
    ],
)
def test_says_what_it_cannot_read(line: str, said: str) -> None:
    with pytest.raises(CommandError, match=said.replace("$", r"\$")):
        read_curl_line(line)


def test_headers_and_bodies_do_not_show_themselves() -> None:
    assert "tk-secret" not in repr(read_curl_line("curl h -H 'x-api-key: tk-secret' -d tk-secret"))
