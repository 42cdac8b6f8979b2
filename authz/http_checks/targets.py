"""What a proxy asks about: its own URL says the form and the policy, what follows is the client's.

- `/envoy/<path>` and `/envoy;scope=tools;metering=off/<path>`: Envoy puts `path_prefix` before the
  path of its client. A client's path begins with a slash, so it cannot reach into the prefix.
- `/forward?scope=tools&metering=off` and `/forward/nginx?...`: the original method and URI come in
  headers, and no body.

Whatever cannot be read becomes an extension that nobody knows: such a route is misconfigured, and
lets nobody through.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

ENVOY: Final = "/envoy"
FORWARD: Final = "/forward"
FORWARD_NGINX: Final = "/forward/nginx"
_CERTIFICATES: Final = "client-certificates"


class Form(Enum):
    """Who asks, which is how it wants to be answered."""

    ENVOY = "envoy"
    FORWARD = "forward"
    NGINX = "nginx"


@dataclass(frozen=True, slots=True)
class Target:
    """The form, the route's extensions and, for Envoy, the path that its client asked for."""

    form: Form
    extensions: Mapping[str, str]
    path: str = ""


def read_target(target: str) -> Target:
    """Read the path and the query of what a proxy asks, as they came."""
    path, question_mark, query = target.partition("?")
    if path == FORWARD:
        return Target(Form.FORWARD, _extensions(query.split("&") if query else []))
    if path == FORWARD_NGINX:
        return Target(Form.NGINX, _extensions(query.split("&") if query else []))
    prefix, slash, rest = path[1:].partition("/")
    form, *parts = prefix.split(";")
    original = slash + rest + question_mark + query
    if "/" + form != ENVOY or not slash:
        return Target(Form.ENVOY, {f"/{form}": ""}, original)
    return Target(Form.ENVOY, _extensions(parts), original)


def _extensions(parts: list[str]) -> Mapping[str, str]:
    pairs = [part.partition("=")[::2] for part in parts]
    found = dict(pairs)
    if len(found) < len(pairs):
        return {"given twice": ""}
    if _CERTIFICATES in found:
        # The certificate of a client is in Envoy's gRPC check only.
        return {f"{_CERTIFICATES} over HTTP": ""}
    return found
