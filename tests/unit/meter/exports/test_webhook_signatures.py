"""Messages to webhooks are signed as Standard Webhooks publishes it."""

from datetime import UTC, datetime

import pytest

from meter.errors import InvalidRequest
from meter.exports.webhooks.webhook import (
    EventType,
    WebhookTerms,
    make_secret,
    signed_headers,
)
from meter.sealing import SecretText


def test_a_published_example_has_the_published_signature() -> None:
    headers = signed_headers(
        SecretText("whsec_plJ3nmyCDGBKInavdOK15jsl"),
        "msg_loFOjxBNrRLzqYUf",
        datetime.fromtimestamp(1_731_705_121, UTC),
        b'{"event_type":"ping","data":{"success":true}}',
    )
    assert headers == {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }


def test_secrets_differ_and_are_not_shown() -> None:
    one, other = make_secret(), make_secret()
    assert one.reveal() != other.reveal()
    assert one.reveal().startswith("whsec_")
    assert one.reveal() not in f"{one} {one!r}"


@pytest.mark.parametrize(
    ("url", "events", "low"),
    [
        ("http://example.com/", {EventType.KEY_REVOKED}, None),
        ("https://user:pass@example.com/", {EventType.KEY_REVOKED}, None),
        ("ftp://example.com/", {EventType.KEY_REVOKED}, None),
        ("https://example.com/", set(), None),
        ("https://example.com/", {EventType.BALANCE_LOW}, None),
        ("https://example.com/", {EventType.KEY_REVOKED}, 5),
    ],
)
def test_terms_that_cannot_be_met_are_refused(
    url: str, events: set[EventType], low: int | None
) -> None:
    with pytest.raises(InvalidRequest):
        WebhookTerms(url, frozenset(events), low)
