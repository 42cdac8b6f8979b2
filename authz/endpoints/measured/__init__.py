"""Endpoints that are billed by other units than tokens: search units, characters, seconds."""
