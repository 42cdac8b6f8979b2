"""Reading a body strictly, and editing it by splices."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.decision import Deny, Reason, Refused
from authz.endpoints.body import (
    _DECODER,
    MAX_MEMBERS,
    Body,
    _decode,
    parse,
    read_body,
)
from authz.endpoints.edits import edit_body
from authz.endpoints.weight import MAX_MARKS
from authz.request import AuthRequest
from meter.pricing.prices import PriceCeiling
from tests.splices import apply_edits

MAX_BYTES = 1_000


def request(body: bytes, *headers: tuple[str, str]) -> AuthRequest:
    return AuthRequest("POST", "/v1/chat/completions", headers, body)


def reason(result: Body | Deny) -> Reason:
    assert isinstance(result, Deny), result
    return result.reason


def parsed(raw: bytes) -> Body:
    body = parse(raw)
    assert isinstance(body, Body), body
    return body


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
    ],
)
def test_reads_json_in_utf8(content_type: str) -> None:
    assert isinstance(read_body(request(b"{}", ("content-type", content_type)), MAX_BYTES), Body)


@pytest.mark.parametrize(
    "content_types",
    [
        [],
        [""],
        ["text/plain"],
        ["application/json; charset=utf-16"],
        ["application/json; charset=utf-8; charset=utf-16"],
        ["application/json; boundary=x"],
        ["application/jsonp"],
        ["application/json, text/plain"],
        ["application/json", "application/json"],
    ],
)
def test_refuses_other_content_types(content_types: list[str]) -> None:
    headers = [("content-type", value) for value in content_types]
    assert reason(read_body(request(b"{}", *headers), 9)) is Reason.UNSUPPORTED_CONTENT_TYPE


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "deflate"])
def test_refuses_content_encodings(encoding: str) -> None:
    headers = (("content-type", "application/json"), ("content-encoding", encoding))
    assert reason(read_body(request(b"{}", *headers), 9)) is Reason.UNSUPPORTED_CONTENT_ENCODING


def test_identity_is_no_encoding() -> None:
    headers = (("content-type", "application/json"), ("content-encoding", "identity"))
    assert isinstance(read_body(request(b"{}", *headers), MAX_BYTES), Body)


def test_refuses_a_body_over_the_limit() -> None:
    sent = request(b" " * (MAX_BYTES + 1), ("content-type", "application/json"))
    assert reason(read_body(sent, MAX_BYTES)) is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b'"model"',
        b"null",
        b"{} {}",
        b"{}x",
        b"{}\x00",
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": -Infinity}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"a": "\x01"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xed\xa0\x80"}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"/* */ {}",
    ],
)
def test_refuses_what_is_no_strict_json_object(raw: bytes) -> None:
    assert reason(parse(raw)) is Reason.INVALID_JSON


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 1}',
        b'{"max_tokens": 1, "max_tokens": 900}',
        b'{"max_tokens": 1, "max_\\u0074okens": 900}',
        b'{"a": {"b": [{"c": 1, "c": 2}]}}',
        b'{"a": null, "a": null}',
    ],
)
def test_refuses_names_that_come_twice_at_any_depth(raw: bytes) -> None:
    assert reason(parse(raw)) is Reason.DUPLICATE_KEY


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b"{}", b'{"max_tokens":7}'),
        (b'  {"a":1}', b'  {"max_tokens":7,"a":1}'),
        (b'{ "a":1 }', b'{"max_tokens":7, "a":1 }'),
        (b'{"max_tokens":null}', b'{"max_tokens":7}'),
        (b'{"max_tokens" : null , "a":1}', b'{"max_tokens" : 7 , "a":1}'),
        (b'{"a":1,"max_completion_tokens":\n null}', b'{"a":1,"max_completion_tokens":\n 7}'),
        (
            '{"größe 🙂":"ä","max_tokens":null}'.encode(),
            '{"größe 🙂":"ä","max_tokens":7}'.encode(),
        ),
        (
            b'{"a":{"max_tokens":null},"b":"\\"max_tokens\\":null","max_tokens":null}',
            b'{"a":{"max_tokens":null},"b":"\\"max_tokens\\":null","max_tokens":7}',
        ),
        (b'{"max_\\u0074okens":null}', b'{"max_\\u0074okens":7}'),
        (b'{"stop":null,"a":1}', b'{"max_tokens":7,"stop":null,"a":1}'),
    ],
)
def test_writes_a_limit_where_none_is_named(raw: bytes, edited: bytes) -> None:
    assert apply_edits(raw, edit_body(parsed(raw), 7, None)) == edited


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
LIMITS = st.sampled_from(["max_tokens", "max_completion_tokens"])


@pytest.mark.parametrize("value", [b"{}", b"[]", b"0", b'""'])
def test_a_body_of_millions_of_values_is_refused_before_it_is_parsed(value: bytes) -> None:
    raw = b'{"a":[' + b",".join([value] * MAX_MARKS) + b"]}"
    assert reason(parse(raw)) is Reason.REQUEST_TOO_LARGE


def test_a_body_of_thousands_of_members_is_refused() -> None:
    members = {str(number): None for number in range(MAX_MEMBERS)}
    parsed(json.dumps(members).encode())
    raw = json.dumps({**members, "max_tokens": None}).encode()
    assert reason(parse(raw)) is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b"[" * 129 + b"]" * 129, "128 levels"),
    ],
)
def test_a_refusal_names_what_is_wrong(raw: bytes, said: str) -> None:
    refused = parse(raw)
    assert isinstance(refused, Deny)
    assert said in refused.message


def test_a_large_body_of_few_values_is_read() -> None:
    parsed(b'{"a":"' + b"a" * (MAX_MARKS + 1) + b'"}')


TAG = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b"{}", b'{"trace":{"trace_id":"TAG"}}'),
        (b'{"a":1}', b'{"trace":{"trace_id":"TAG"},"a":1}'),
        (b'\n{ "a":1}', b'\n{"trace":{"trace_id":"TAG"}, "a":1}'),
        (b'{"a":1,"trace": null }', b'{"a":1,"trace": {"trace_id":"TAG"} }'),
        (b'{"trace":{}}', b'{"trace":{"tollkeeper":"TAG"}}'),
        (b'{"trace":{ }}', b'{"trace":{"tollkeeper":"TAG" }}'),
        (
            b'{"trace": {"trace_id":"mine"},"a":1}',
            b'{"trace": {"tollkeeper":"TAG","trace_id":"mine"},"a":1}',
        ),
        (b'{"tr\\u0061ce":{"a":[]}}', b'{"tr\\u0061ce":{"tollkeeper":"TAG","a":[]}}'),
        (
            '{"größe 🙂":"ä","trace":{"ü":"ö"}}'.encode(),
            '{"größe 🙂":"ä","trace":{"tollkeeper":"TAG","ü":"ö"}}'.encode(),
        ),
        (
            b'{"a":{"trace":null},"b":"\\"trace\\":{}","trace":{}}',
            b'{"a":{"trace":null},"b":"\\"trace\\":{}","trace":{"tollkeeper":"TAG"}}',
        ),
    ],
)
def test_writes_a_report_tag(raw: bytes, edited: bytes) -> None:
    expected = edited.replace(b"TAG", TAG.encode())
    assert apply_edits(raw, edit_body(parsed(raw), None, TAG)) == expected


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b'{"trace":{"tollkeeper":"own"}}', b'{"trace":{"tollkeeper":"TAG"}}'),
        (b'{"trace":{"tollkeeper":null}}', b'{"trace":{"tollkeeper":"TAG"}}'),
        (
            '{"ä":1,"trace": {"ü":{"tollkeeper":1}, "\\u0074ollkeeper" : [{}] ,"b":2}}'.encode(),
            '{"ä":1,"trace": {"ü":{"tollkeeper":1}, "\\u0074ollkeeper" : "TAG" ,"b":2}}'.encode(),
        ),
        (b'{"trace":"text"}', b'{"trace":{"trace_id":"TAG"}}'),
        (b'{"trace":[{}]}', b'{"trace":{"trace_id":"TAG"}}'),
        (b'{"trace":7}', b'{"trace":{"trace_id":"TAG"}}'),
        (b'{"trace":false}', b'{"trace":{"trace_id":"TAG"}}'),
    ],
)
def test_no_client_can_keep_a_tag_out(raw: bytes, edited: bytes) -> None:
    """A reply that nobody reports counts as not billed: a client must not decide that."""
    expected = edited.replace(b"TAG", TAG.encode())
    assert apply_edits(raw, edit_body(parsed(raw), None, TAG)) == expected


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b"{}", b'{"max_tokens":7,"trace":{"trace_id":"TAG"}}'),
        (b'{"a":1}', b'{"max_tokens":7,"trace":{"trace_id":"TAG"},"a":1}'),
        (
            b'{"a":1,"max_tokens":null}',
            b'{"trace":{"trace_id":"TAG"},"a":1,"max_tokens":7}',
        ),
        (
            b'{"trace":{"a":1},"a":1}',
            b'{"max_tokens":7,"trace":{"tollkeeper":"TAG","a":1},"a":1}',
        ),
        (
            '{"ä":"🙂","max_completion_tokens":null,"trace":{}}'.encode(),
            '{"ä":"🙂","max_completion_tokens":7,"trace":{"tollkeeper":"TAG"}}'.encode(),
        ),
        (
            '{"trace":{"ä":"🙂"},"max_tokens" : null,"max_completion_tokens":null}'.encode(),
            (
                '{"trace":{"tollkeeper":"TAG","ä":"🙂"},"max_tokens" : 7,'
                '"max_completion_tokens":null}'
            ).encode(),
        ),
        (b'{"trace":null,"max_tokens":null}', b'{"trace":{"trace_id":"TAG"},"max_tokens":7}'),
    ],
)
def test_writes_limit_and_tag_at_once(raw: bytes, edited: bytes) -> None:
    expected = edited.replace(b"TAG", TAG.encode())
    assert apply_edits(raw, edit_body(parsed(raw), 7, TAG)) == expected


def test_without_limit_or_tag_nothing_is_edited() -> None:
    assert edit_body(parsed(b'{"max_tokens":null,"trace":null}'), None, None) == ()


TRACES = st.just(None) | st.dictionaries(
    st.sampled_from(["trace_id", "tollkeeper", "ä", ""]), JSON, max_size=3
)


@given(
    members=st.dictionaries(NAMES, JSON, max_size=3),
    own=st.fixed_dictionaries(
        {},
        optional={
            "trace": TRACES | JSON,
            "max_tokens": st.none(),
            "max_completion_tokens": st.none(),
        },
    ),
    last=st.dictionaries(NAMES, JSON, max_size=3),
    keeps_unicode=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    limit=st.none() | st.integers(1, 10**7),
)
def test_tagged_bodies_say_the_same_and_the_tag(
    members: dict[str, Any],
    own: dict[str, Any],
    last: dict[str, Any],
    keeps_unicode: bool,
    indent: int | None,
    limit: int | None,
) -> None:
    original = {**members, **own, **last}
    raw = json.dumps(original, ensure_ascii=not keeps_unicode, indent=indent).encode()
    edits = edit_body(parsed(raw), limit, TAG)
    at = 0
    for edit in edits:  # What Envoy's splice insists on.
        assert at <= edit.offset <= edit.offset + edit.remove <= len(raw)
        at = edit.offset + edit.remove
    edited = apply_edits(raw, edits)
    strict = parse(edited)
    assert isinstance(strict, Body)
    trace = original.get("trace")
    trace = {**trace, "tollkeeper": TAG} if isinstance(trace, dict) else {"trace_id": TAG}
    assert strict.members.pop("trace") == trace
    limits = {name: strict.members.get(name) for name in ("max_tokens", "max_completion_tokens")}
    if limit is not None and not any(original.get(name) for name in limits):
        assert sorted(limits.values(), key=bool)[-1] == limit
    untouched = [name for name in original if name not in {"trace", *limits}]
    assert [name for name in strict.members if name in untouched] == untouched
    assert all(strict.members[name] == original[name] for name in untouched)


@given(
    members=st.dictionaries(NAMES, JSON, max_size=5),
    nulls=st.sets(LIMITS, max_size=2),
    keeps_unicode=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    limit=st.integers(1, 10**7),
)
def test_an_edited_body_says_the_same_and_the_limit(
    members: dict[str, Any], nulls: set[str], keeps_unicode: bool, indent: int | None, limit: int
) -> None:
    members = {**members, **dict.fromkeys(nulls)}
    raw = json.dumps(members, ensure_ascii=not keeps_unicode, indent=indent).encode()
    edited = json.loads(apply_edits(raw, edit_body(parsed(raw), limit, None)))
    written = [name for name in ("max_tokens", "max_completion_tokens") if edited.get(name)]
    assert len(written) == 1
    assert edited[written[0]] == limit
    original = {**members, written[0]: limit}
    assert edited == original


CEILING = PriceCeiling(150_000, 600_000, 0, None)
OURS = '{"prompt":0.15000015,"completion":0.6000006,"request":0.00}'


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        ("{}", '{"provider":{"max_price":OURS}}'),
        ('{"a":1}', '{"provider":{"max_price":OURS},"a":1}'),
        ('{"ä":1,"provider": null }', '{"ä":1,"provider": {"max_price":OURS} }'),
        ('{"ä":1,"provider":{}}', '{"ä":1,"provider":{"max_price":OURS}}'),
        (
            '{"ä":1,"provider":{"only":["ü"]},"b":2}',
            '{"ä":1,"provider":{"max_price":OURS,"only":["ü"]},"b":2}',
        ),
        (
            '{"provider":{"only":["ü"], "max_price" : null ,"sort":"price"}}',
            '{"provider":{"only":["ü"], "max_price" : OURS ,"sort":"price"}}',
        ),
        ('{"provider":{"max_\\u0070rice":{}}}', '{"provider":{"max_\\u0070rice":OURS}}'),
    ],
)
def test_writes_the_price_limits(raw: str, edited: str) -> None:
    edits = edit_body(parsed(raw.encode()), None, None, CEILING)
    assert apply_edits(raw.encode(), edits).decode() == edited.replace("OURS", OURS)


@pytest.mark.parametrize(
    ("own", "written"),
    [
        ({"prompt": 0.1}, {"prompt": 0.1, "completion": 0.6000006}),
        ({"prompt": "0.1", "completion": 9}, {"prompt": 0.1, "completion": 0.6000006}),
        ({"prompt": 9.5, "completion": 0}, {"prompt": 0.15000015, "completion": 0}),
        ({"completion": 1e-12}, {"prompt": 0.15000015, "completion": 1e-12}),
        ({"audio": 3, "prompt": None}, {"prompt": 0.15000015, "audio": 3}),
    ],
)
def test_the_lower_price_limit_is_written(own: dict[str, Any], written: dict[str, Any]) -> None:
    raw = json.dumps({"provider": {"max_price": own}}).encode()
    edited = json.loads(apply_edits(raw, edit_body(parsed(raw), None, None, CEILING)))
    limits = edited["provider"]["max_price"]
    assert limits["request"] == 0
    assert {name: limits[name] for name in written} == written


TEXTS = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda before, value, after, kept: (before + json.dumps(value) + after)[:kept],
        st.sampled_from(["", " ", "\n\t", "\u00a0", "x"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        st.sampled_from(["", " ", "\r\n ", "\u00a0", "{}", "x", ","]),
        st.integers(0, 200),
    ),
    st.sampled_from(['{"a":1,"a":2}', '{"a":{"b":1,"b":2}} ', '{"a":NaN}', '{"a":1} {"a":1}']),
)


@given(TEXTS)
def test_the_quick_way_of_the_decoder_reads_the_same(text: str) -> None:
    def outcome(read: Callable[[str], Any]) -> object:
        try:
            return repr(read(text))
        except Refused as refused:
            return refused.deny
        except ValueError as error:
            return type(error), str(error)

    assert outcome(_decode) == outcome(_DECODER.decode)
