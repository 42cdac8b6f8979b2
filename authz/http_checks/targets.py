"""Reads the target of a proxy's request: the form, the policy, and the path of the client.

- `/envoy/<path>` and `/envoy;scope=tools;metering=off/<path>`: Envoy puts `path_prefix` before the
  path of its client. A client's path begins with a slash, so it cannot reach into the prefix.
- `/forward?scope=tools&metering=off` and `/forward/nginx?...`: the original method and URI come in
  headers, and no body.

A target that cannot be read becomes an unknown extension. The route then counts as misconfigured,
and every request is refused.
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
    """The kind of proxy, which decides the form of the answer."""

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
    """Read the request target of a proxy, unchanged."""
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
        # Only Envoy's gRPC check carries the certificate of a client.
        return {f"{_CERTIFICATES} over HTTP": ""}
    return found
