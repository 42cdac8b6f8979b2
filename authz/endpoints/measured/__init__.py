"""Endpoints billed by other units than tokens of text: pictures, searches, characters, seconds."""
