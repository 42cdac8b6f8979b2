"""Migrations never change once they have been published: a database remembers their digests."""

import hashlib
from pathlib import Path

from tests.paths import ROOT

MIGRATIONS = ROOT / "meter" / "postgres" / "migrations"
# As `sha256sum` writes it. A new migration adds its line, and no line changes.
PUBLISHED = Path(__file__).with_name("migrations.sha256")


def test_published_migrations_are_as_they_were() -> None:
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in MIGRATIONS.glob("*.sql")
    }
    lines = PUBLISHED.read_text().splitlines()
    assert found == {name: digest for digest, name in (line.split() for line in lines)}
