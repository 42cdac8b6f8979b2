"""The bounds of a body that are checked before it is parsed."""

import json

import pytest

from authz.decision import Deny, Reason, echo
from authz.endpoints.body import Body, parse
from authz.endpoints.chat import CHAT_COMPLETIONS
from authz.endpoints.edits import edit_body
from authz.endpoints.weight import MAX_DIGITS, MAX_MARKS_TOGETHER, MAX_TEXT_BYTES, hollow_out
from bench.bodies import SHAPES, work_on
from meter.pricing.prices import Demand
from meter.providers.openrouter.broadcast import TAG_MEMBER
from tests.splices import apply_edits

TAG = "0123456789abcdef" * 2
IMAGE = "data:image/png;base64," + "iVBORw0KGgo/" * 10_000


def image_body(url: str, **members: object) -> bytes:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    return json.dumps({"messages": messages, "model": "acme/one", **members}).encode()


def parsed(raw: bytes) -> Body:
    body = parse(raw)
    assert isinstance(body, Body), body
    return body


def refusal(raw: bytes) -> Deny:
    body = parse(raw)
    assert isinstance(body, Deny)
    return body


def demand(raw: bytes) -> Demand:
    demand = CHAT_COMPLETIONS.bound(parsed(raw), False)
    assert isinstance(demand, Demand), demand
    return demand


@pytest.mark.parametrize("shape", SHAPES)
def test_large_bodies_of_real_shapes_are_read(shape: str) -> None:
    work_on(SHAPES[shape]())


def test_an_image_in_a_large_body_is_no_text() -> None:
    short, long = image_body(IMAGE[:10_000]), image_body(IMAGE)
    assert demand(long).prompt_tokens == demand(short).prompt_tokens


def test_slashes_may_be_escaped_as_php_does() -> None:
    escaped = image_body(IMAGE).replace(b"/", b"\\/")
    assert len(hollow_out(escaped).text) < 1_000
    slashes = IMAGE.count("/") + len("acme/one".partition("/")[1])
    assert demand(escaped).prompt_tokens == demand(image_body(IMAGE)).prompt_tokens + slashes


def test_a_long_data_url_in_a_text_is_text() -> None:
    raw = json.dumps({"messages": [{"role": "user", "content": IMAGE}]}).encode()
    assert demand(raw).prompt_tokens > len(IMAGE)


def test_a_stand_in_that_a_client_guesses_has_its_own_length() -> None:
    hollow = hollow_out(image_body(IMAGE))
    (stand_in,) = hollow.inline_chars
    forged = image_body(stand_in[:-4] + "0000", user="p" * 100_000)
    assert demand(forged).prompt_tokens > 100_000


def test_no_message_shows_what_a_stand_in_ends_with() -> None:
    (stand_in,) = hollow_out(image_body(IMAGE)).inline_chars
    assert "#" not in echo(stand_in)


def test_names_are_compared_whole_however_long() -> None:
    name = json.dumps(IMAGE)
    raw = f'{{"model": "m", "x": {{{name}: 1, {name} : 2}}}}'.encode()
    assert refusal(raw).reason is Reason.DUPLICATE_KEY


@pytest.mark.parametrize("count", [1, 3])
def test_edits_behind_an_image_are_where_they_belong(count: int) -> None:
    content = [{"type": "image_url", "image_url": {"url": IMAGE}}] * count
    members = {"messages": [{"role": "üser", "content": content}], "max_tokens": None}
    sent = {**members, "trace": {TAG_MEMBER: IMAGE, "own": 1}, "model": "m"}
    raw = json.dumps(sent, ensure_ascii=False).encode()
    edited = json.loads(apply_edits(raw, edit_body(parsed(raw), 7, TAG)))
    assert edited == {**sent, "max_tokens": 7, "trace": {TAG_MEMBER: TAG, "own": 1}}


@pytest.mark.parametrize(
    ("raw", "reason", "said"),
    [
        (
            b'{"a":"' + "ж".encode() * (MAX_TEXT_BYTES // 2) + b'"}',
            Reason.REQUEST_TOO_LARGE,
            "12 MiB",
        ),
        (
            b'{"a":[' + b"0," * MAX_MARKS_TOGETHER + b"0]}",
            Reason.REQUEST_TOO_LARGE,
            "One object or list",
        ),
        (
            b'{"a":{' + b",".join(b'"%d":[]' % n for n in range(60_000)) + b"}}",
            Reason.REQUEST_TOO_LARGE,
            "One object or list",
        ),
        (b'{"a":[' + b'{"":0},' * 300_000 + b"0]}", Reason.REQUEST_TOO_LARGE, "1000000"),
        (b'{"a":[' + b'"",' * 1_100_000 + b"0]}", Reason.REQUEST_TOO_LARGE, "1000000"),
        (
            b'{"b":"' + b"b" * 70_000 + b'","a":' + b"9" * (MAX_DIGITS + 1) + b"}",
            Reason.INVALID_JSON,
            "100 digits",
        ),
        (b'{"a":' * 129 + b"0" + b"}" * 129, Reason.INVALID_JSON, "128 levels"),
    ],
)
def test_what_would_cost_too_much_is_refused_by_name(raw: bytes, reason: Reason, said: str) -> None:
    refused = refusal(raw)
    assert refused.reason is reason
    assert said in refused.message


@pytest.mark.parametrize(
    "text",
    ["[" * 200, '{"a":' * 200, "7" * 500, ",:[{" * 100_000, '\\"' * 50_000, "\\\\" * 50_000],
)
def test_what_stands_in_strings_is_no_structure(text: str) -> None:
    raw = json.dumps({"b": "b" * 70_000, "a": text, "c": {"d": 1}}).encode()
    assert parsed(raw).members["a"] == text
