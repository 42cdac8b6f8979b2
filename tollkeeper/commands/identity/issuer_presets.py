"""Terms to start with for common issuers; docs/jwts.md gives the reasons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from tollkeeper.errors import CommandError

_DEFAULT_SCOPES: Final = ["inference", "models:read", "usage:read"]
_ADMIN_SCOPES: Final = ["admin:read", "admin:write"]
# Accounts of every tenant sign in there, and their JWTs name the real tenant in `iss`.
_SHARED_TENANTS: Final = frozenset({"common", "organizations", "consumers"})


@dataclass(frozen=True, slots=True)
class Asked:
    """The options for a preset; each preset needs some of them."""

    url: str | None
    audience: str | None
    realm: str | None
    tenant: str | None
    domain: str | None

    def need(self, name: str) -> str:
        """Return an option that the preset needs; raises CommandError if it was not given."""
        value = getattr(self, name)
        if not value:
            raise CommandError(f"This preset needs --{name}.")
        return str(value)


def _keycloak(asked: Asked) -> dict[str, Any]:
    audience = asked.need("audience")
    host = asked.need("url").rstrip("/")
    return {
        "url": f"{host}/realms/{asked.need('realm')}",
        "terms": {
            "audiences": [audience],
            "scopes": {
                "realm_access.roles": {"tollkeeper-admin": _ADMIN_SCOPES},
                f"resource_access.{audience}.roles": {"caller": _DEFAULT_SCOPES},
            },
            "may_create_accounts": True,
        },
    }


def _auth0(asked: Asked) -> dict[str, Any]:
    return {
        "url": asked.need("url").rstrip("/") + "/",
        "terms": {
            "audiences": [asked.need("audience")],
            "scopes": {"permissions": {"call:models": _DEFAULT_SCOPES}},
            "may_create_accounts": True,
        },
    }


def _entra(asked: Asked) -> dict[str, Any]:
    tenant = asked.need("tenant")
    if tenant.lower() in _SHARED_TENANTS:
        raise CommandError(f"--tenant takes the id of one tenant; '{tenant}' stands for many.")
    return {
        "url": f"https://login.microsoftonline.com/{tenant}/v2.0",
        "terms": {
            "audiences": [asked.need("audience")],
            "required_claims": {"azp": []},
            "account_claim": "oid",
            "scopes": {
                "scp": {"Models.Call": _DEFAULT_SCOPES},
                "roles": {"Tollkeeper.Admin": _ADMIN_SCOPES},
            },
            "may_create_accounts": True,
        },
    }


def _google(asked: Asked) -> dict[str, Any]:
    return {
        "url": "https://accounts.google.com",
        "terms": {
            "audiences": [asked.need("audience")],
            "may_be_id_token": True,
            "required_claims": {"hd": [asked.need("domain")]},
            "default_scopes": _DEFAULT_SCOPES,
            "may_create_accounts": True,
        },
    }


PRESETS: Final[Mapping[str, Callable[[Asked], dict[str, Any]]]] = MappingProxyType(
    {"keycloak": _keycloak, "auth0": _auth0, "entra": _entra, "google": _google}
)
