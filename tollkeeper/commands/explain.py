"""`tollkeeper explain`: the decision that a request would get, and why, phase by phase."""

import asyncio
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from meter.errors import InvalidRequest
from meter.listening import ListenAddress, parse_address
from tollkeeper.commands.health import HealthSettings
from tollkeeper.commands.identity.key_options import pairs
from tollkeeper.curl_line import MAX_LINE_CHARS, CurlRequest, read_curl_line, read_curl_words
from tollkeeper.errors import CommandError
from tollkeeper.stack.home import locate
from tollkeeper.stack.servers.instances import instances
from tollkeeper.stack.settings import load_settings
from tollkeeper.stack.supervision.probes import http
from tollkeeper.tables import (
    HomeOption,
    JsonOption,
    print_json,
    say,
    show_one,
    show_rows,
    wants_json,
)

EXIT_REFUSED: Final = 1
EXIT_MISUSED: Final = 2
EXIT_NO_ANSWER: Final = 3
TIMEOUT_S: Final = 15.0
COLUMNS: Final = ("phase", "name", "outcome", "says")
_STDIN: Final = "-"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explain", context_settings={"allow_interspersed_args": False})(explain)


def explain(
    curl: Annotated[
        list[str] | None,
        typer.Argument(help="A line of curl, or - to read the line from standard input (safer)."),
    ] = None,
    curl_file: Annotated[
        Path | None,
        typer.Option("--curl-file", help="File with a line of curl; - for standard input."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="Method, if no curl is given.")] = "POST",
    path: Annotated[
        str, typer.Option("--path", help="Path and query, if no curl is given.")
    ] = "/v1/chat/completions",
    header: Annotated[
        list[str] | None, typer.Option("--header", help="'Name: value'; may be repeated.")
    ] = None,
    body_file: Annotated[
        Path | None, typer.Option("--body-file", help="File with the body, sent as JSON.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="File with the credential: a key or a JWT.")
    ] = None,
    peer: Annotated[str, typer.Option("--peer", help="IP address of the client.")] = "127.0.0.1",
    certificate: Annotated[
        str, typer.Option("--certificate", help="Name in the client's certificate.")
    ] = "",
    extension: Annotated[
        list[str] | None,
        typer.Option(
            "--extension", help="Extension of the route, such as scope=usage:read; may be repeated."
        ),
    ] = None,
    authz: Annotated[
        str | None,
        typer.Option(
            "--authz",
            envvar="TOLLKEEPER_AUTHZ_URL",
            help="Health address of authz: http://host:port or unix:/path.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = None,
) -> None:
    """Explain the decision about a request: exit code 0 allow, 1 refuse, 2 misused, 3 no answer.

    The request is not sent to a provider, no money is held for it, and no limit counts it.
    Other users of this machine can see a credential in the arguments of a program: paste the
    line of curl into standard input instead.
    """
    try:
        if not (curl or curl_file or header or body_file or key_file or certificate):
            raise CommandError(
                "There is nothing to explain: paste a line of curl into `tollkeeper explain -`, "
                "or name --key-file and --body-file."
            )
        headers = pairs(header or [], "--header", ":")
        request = _read(curl or [], curl_file) or CurlRequest(
            method,
            path,
            [(name.strip(), value.strip()) for name, value in headers],
            None if body_file is None else _octets(body_file),
        )
        if key_file is not None:
            key = _octets(key_file).decode("utf-8", "replace").strip()
            request.headers.append(("authorization", f"Bearer {key}"))
        names = {name.lower() for name, _ in request.headers}
        if request.body is not None and "content-type" not in names:
            request.headers.append(("content-type", "application/json"))
        document = {
            "method": request.method,
            "path": request.path,
            "headers": [list(header) for header in request.headers],
            "body_base64": base64.b64encode(request.body or b"").decode(),
            "peer": peer,
            "certificate": certificate,
            "extensions": dict(pairs(extension or [], "--extension")),
        }
        url, socket = find_authz(authz, home)
    except CommandError as error:
        _leave(error, EXIT_MISUSED)
    try:
        found = asyncio.run(_ask(url, socket, document))
    except CommandError as error:
        _leave(error, EXIT_NO_ANSWER)
    if wants_json(as_json):
        print_json(found)
    else:
        show_rows(found["phases"], COLUMNS, False, "")
        answer = found["answer"]
        lines = {
            "verdict": found["verdict"],
            "credential": found["credential"],
            "status": answer["status"],
            "code": answer["code"],
            "message": answer["message"],
            **answer["headers"],
        }
        show_one({name: value for name, value in lines.items() if value is not None}, False)
        for warning in found["warnings"]:
            say(f"Warning: {warning}")
    raise typer.Exit({"allow": 0, "refuse": EXIT_REFUSED}.get(found["verdict"], EXIT_NO_ANSWER))


def _leave(error: CommandError, code: int) -> NoReturn:
    """Print the error and exit with `code`, since exit code 1 means a refused request."""
    typer.echo(f"tollkeeper: {error}", err=True)
    raise typer.Exit(code) from None


def _read(words: Sequence[str], file: Path | None) -> CurlRequest | None:
    """Return the request of a line of curl, or None when no line was given."""
    if words and words != [_STDIN]:
        return read_curl_words(words)
    if words or file == Path(_STDIN):
        return read_curl_line(sys.stdin.read(MAX_LINE_CHARS + 1))
    return None if file is None else read_curl_line(_octets(file).decode("utf-8", "replace"))


def _octets(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None


def find_authz(given: str | None, home: Path | None) -> tuple[str, Path | None]:
    """Return the address of an authz: the one named, else one beside us, else the stack's."""
    listen = given or HealthSettings().authz_health_listen
    if listen is None:
        settings = load_settings(home=home)
        (first, *_) = instances(locate(settings.home), 1, 1, settings.api_port).authz
        return f"{ListenAddress(first.health).base_url}/explain", first.health
    if "://" in listen:
        return f"{listen.rstrip('/')}/explain", None
    try:
        address = parse_address(listen)
    except InvalidRequest as error:
        raise CommandError(f"{error}.") from None
    return f"{address.base_url}/explain", address.path


async def _ask(url: str, socket: Path | None, document: object) -> Any:
    where = socket or url
    try:
        answer = await http("POST", url, socket=socket, body=document, timeout_s=TIMEOUT_S)
        found = answer.json()
    except (OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(
            f"No authz answers at {where} ({reason}); is Tollkeeper running? Check --authz, "
            "TOLLKEEPER_AUTHZ_URL and TOLLKEEPER_HOME."
        ) from None
    if answer.status != 200 or not isinstance(found, dict):
        said = found.get("error") if isinstance(found, dict) else None
        raise CommandError(f"authz at {where} answers {answer.status}: {said or 'no explanation'}.")
    return found
