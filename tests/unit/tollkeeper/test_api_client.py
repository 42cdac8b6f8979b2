"""The messages that the command line makes of a refusal by the meter API."""

import io
import json
import urllib.error
from email.message import Message

import pytest

from tollkeeper.api_client import _refused


@pytest.mark.parametrize(
    ("detail", "sentence"),
    [
        ("body.budgets.day: must be less", "Budgets.day: must be less."),
        ("body: give both; path.rule_id: too long", "Give both; rule_id: too long."),
        ("there is no user 'body.x'", "There is no user 'body.x'."),
    ],
)
def test_people_are_not_told_of_bodies(detail: str, sentence: str) -> None:
    content = io.BytesIO(json.dumps({"detail": detail}).encode())
    error = urllib.error.HTTPError("http://x", 422, "", Message(), content)
    assert str(_refused(error, "http://x")) == sentence
