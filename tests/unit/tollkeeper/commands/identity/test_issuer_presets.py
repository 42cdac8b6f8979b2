"""Presets of issuers are terms that the meter takes."""

from typing import Any

import pytest

from meter.jwts.addresses import read_https_url
from meter.jwts.terms import IssuerTerms
from tollkeeper.commands.identity.issuer_presets import PRESETS, Asked
from tollkeeper.errors import CommandError

ASKED = Asked("https://id.example.com/", "tollkeeper", "main", "0000-1111", "example.com")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_can_be_put(name: str) -> None:
    body: dict[str, Any] = PRESETS[name](ASKED)
    read_https_url(body["url"])
    assert IssuerTerms.from_json(body["terms"]).audiences == {"tollkeeper"}
    with pytest.raises(CommandError):
        PRESETS[name](Asked(None, None, None, None, None))


def test_keycloak_is_found_by_its_realm() -> None:
    assert PRESETS["keycloak"](ASKED)["url"] == "https://id.example.com/realms/main"


@pytest.mark.parametrize("tenant", ["common", "Organizations", "consumers"])
def test_entra_needs_one_tenant(tenant: str) -> None:
    with pytest.raises(CommandError, match="--tenant"):
        PRESETS["entra"](Asked(None, "tollkeeper", None, tenant, None))
