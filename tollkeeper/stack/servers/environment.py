"""The environment that a child process gets: what it needs, and no provider's key."""

import os
from collections.abc import Mapping

# Where programs, certificates, proxies and locales are found.
_SHARED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_OURS = "TOLLKEEPER_"
_SECRET = frozenset({"TOLLKEEPER_OPERATOR_TOKEN"})


def server_environment() -> dict[str, str]:
    """For the servers that are not ours."""
    return {name: os.environ[name] for name in _SHARED if name in os.environ}


def service_environment(
    settings: Mapping[str, str], defaults: Mapping[str, str] | None = None
) -> dict[str, str]:
    """For our own services: their settings go before what the person set for tuning.

    What the person set goes before `defaults`; set to nothing, it takes a default away.
    """
    tuning = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OURS) and name not in _SECRET
    }
    chosen = {name: value for name, value in {**(defaults or {}), **tuning}.items() if value}
    return {**server_environment(), "PYTHONUNBUFFERED": "1", **chosen, **settings}


def simulator_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """For the simulator: the one key that it accepts, and what the person set for it."""
    tuning = {name: value for name, value in os.environ.items() if name.startswith("SIMULATOR_")}
    return {**service_environment({}), **tuning, **settings}
