"""Routes and model aliases, as administrators set them. Pure."""

from dataclasses import dataclass
from typing import Final

# Each model's routes are looked for among all of them.
MAX_ROUTES: Final = 200
MAX_ROUTE_PROVIDERS: Final = 8
MAX_PRIORITY: Final = 7
MAX_WEIGHT: Final = 100
MAX_POSITION: Final = 1_000_000
MAX_ALIASES: Final = 1_000
MAX_NAME_CHARS: Final = 200
# Patterns are those of `fnmatch`; a text without these is the id of one model.
_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class RouteProvider:
    """A provider of a route.

    Providers of the lowest `priority` are asked first, the others where those cannot serve.
    Providers of one priority share the requests by `weight`.
    """

    provider: str
    priority: int = 0
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """The providers that serve the models of a pattern, and no other providers do.

    `pattern` is a model's id, or a pattern with `*`. An id takes precedence over patterns, and
    patterns are tried in the order of `position`, then of their ids.
    """

    id: str
    pattern: str
    providers: tuple[RouteProvider, ...]
    position: int = 100

    @property
    def is_exact(self) -> bool:
        """Return whether the pattern is the id of one model."""
        return _WILDCARDS.isdisjoint(self.pattern)


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A name that requests may use for a model.

    A redirect has the name of a model that its provider retires. It applies once nobody offers a
    model of that name.
    """

    name: str
    model_id: str
    is_redirect: bool = False


def provider_cluster_name(provider: str) -> str:
    """Return the name of Envoy's cluster of one provider."""
    return f"provider-{provider}"


def route_cluster_name(route_id: str) -> str:
    """Return the name of Envoy's cluster in which the providers of a route are asked in turn."""
    return f"route-{route_id}"
