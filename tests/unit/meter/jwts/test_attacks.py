"""Every known attack on JWTs is refused, and none makes us ask anybody for anything."""

import base64
import hashlib
import hmac
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meter.jwts.reading import MAX_JWT_CHARS
from meter.jwts.terms import Family
from meter.jwts.verified import VerifiedIdentity
from tests.jwts import (
    AUDIENCE,
    ISSUER,
    NOW,
    NOW_S,
    VerifierSetup,
    b64,
    claims,
    issuer,
    signer,
    stored,
)
from tests.patience import slowness

RSA = signer("RS256")
GOOD = RSA.sign(claims())
HEADER = {"alg": "RS256", "kid": "key-1", "typ": "JWT"}
CPU_LIMIT_S = 0.005


@pytest.fixture
def setup() -> VerifierSetup:
    return VerifierSetup(RSA, family=Family.RS)


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """The address on which an attacker listens; a connection to it fails the test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_good_one_is_believed(setup: VerifierSetup) -> None:
    verified = await setup.verifier.verify(GOOD)
    assert isinstance(verified, VerifiedIdentity)
    assert (verified.issuer_id, verified.subject) == ("main", "ada")


NONES = ["none", "None", "NONE", "nOnE", "none ", " none", "n\u006fne", "", "null", "no\u0000ne"]


@pytest.mark.parametrize("alg", [*NONES, None, 0, False, [], ["none"], {"alg": "none"}])
async def test_no_algorithm(setup: VerifierSetup, alg: object) -> None:
    signed = RSA.sign(claims(), {**HEADER, "alg": alg})
    first, second, signature = signed.split(".")
    for third in (signature, "", "AA", b64(b"\x00" * 256)):
        assert await setup.refusal(f"{first}.{second}.{third}")


def public_forms() -> dict[str, bytes]:
    """The public key in every form that a careless reader might take for a shared secret."""
    public = RSA.private.public_key()
    spki = PublicFormat.SubjectPublicKeyInfo
    forms = {
        "pem": public.public_bytes(Encoding.PEM, spki),
        "der": public.public_bytes(Encoding.DER, spki),
        "pem-pkcs1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "der-pkcs1": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "jwk": json.dumps(RSA.jwk).encode(),
        "jwk-compact": json.dumps(RSA.jwk, separators=(",", ":")).encode(),
        "jwk-sorted": json.dumps(RSA.jwk, separators=(",", ":"), sort_keys=True).encode(),
        "modulus-text": RSA.jwk["n"].encode(),
        "modulus": base64.urlsafe_b64decode(RSA.jwk["n"] + "=="),
        "empty": b"",
    }
    return (
        forms
        | {f"{name}-stripped": form.strip() for name, form in forms.items()}
        | {f"{name}-newline": form.strip() + b"\n" for name, form in forms.items()}
    )


@pytest.mark.parametrize("secret", public_forms().values(), ids=public_forms().keys())
async def test_the_public_key_as_a_shared_secret(setup: VerifierSetup, secret: bytes) -> None:
    for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        for said in (alg, alg.lower(), "RS256"):
            signed = f"{b64(json.dumps({**HEADER, 'alg': said}).encode())}."
            signed += b64(json.dumps(claims()).encode())
            mac = hmac.digest(secret, signed.encode(), digest)
            assert await setup.refusal(f"{signed}.{b64(mac)}")


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_another_algorithm_of_the_same_key(setup: VerifierSetup, alg: str) -> None:
    assert await setup.refusal(RSA.sign(claims(), {**HEADER, "alg": alg}, alg))
    assert await setup.refusal(RSA.sign(claims(), HEADER, alg))
    assert await setup.refusal(RSA.sign(claims(), {**HEADER, "alg": alg}, "RS256"))


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "HS256", "rs256", "RS256 ", "ES256K", "RSA1_5"])
async def test_an_algorithm_of_another_family(setup: VerifierSetup, alg: str) -> None:
    assert await setup.refusal(RSA.sign(claims(), {**HEADER, "alg": alg}))


async def test_members_that_bring_or_fetch_a_key(setup: VerifierSetup, trap: socket.socket) -> None:
    host, port = trap.getsockname()
    own = signer("RS256", number=1)
    address = f"https://{host}:{port}/keys"
    chain = [base64.b64encode(b"certificate").decode()]
    brought: list[dict[str, Any]] = [
        {"jku": address},
        {"x5u": address},
        {"jku": f"{ISSUER}/keys"},
        {"x5c": chain},
        {"jwk": own.jwk},
        {"jwk": RSA.jwk},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"b64": False},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
        {"epk": own.jwk},
    ]
    for members in brought:
        for by in (own, RSA):
            assert await setup.refusal(by.sign(claims(), {**HEADER, **members}))
    iss = f"https://{host}:{port}"
    assert await setup.refusal(own.sign(claims(iss=iss)))


KIDS = [
    "../../../../dev/null",
    "/dev/null",
    "..%2f..%2fetc/passwd",
    "key-1\x00",
    "key-1\n",
    " key-1",
    "KEY-1",
    "key-1' OR '1'='1",
    "' UNION SELECT 'secret' --",
    "$(curl http://127.0.0.1/)",
    "`id`",
    "| cat /etc/passwd",
    "http://127.0.0.1/key",
    "${jndi:ldap://127.0.0.1/a}",
    "",
    "k" * 257,
    "\ud800",
    "\u043aey-1",
]


@pytest.mark.parametrize("kid", [*KIDS, 1, None, True, ["key-1"], {"kid": "key-1"}, 1.5])
async def test_a_strange_kid(kid: object) -> None:
    setup = VerifierSetup(RSA, signer("RS256", "key-2", number=1), family=Family.RS)
    assert await setup.refusal(RSA.sign(claims(), {**HEADER, "kid": kid}))
    attacker = signer("RS256", number=2)
    assert await setup.refusal(attacker.sign(claims(), {**HEADER, "kid": kid}))


NO_TIMES: list[object] = [
    None,
    "",
    str(NOW_S + 300),
    float(NOW_S + 300),
    NOW_S + 300.5,
    True,
    False,
    -1,
    -NOW_S,
    [NOW_S + 300],
    {"time": NOW_S},
    10**12,
    10**18,
    2**63,
    2**64 + NOW_S,
    10**400,
]


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", NO_TIMES, ids=lambda value: repr(value)[:24])
async def test_times_that_are_none(setup: VerifierSetup, name: str, value: object) -> None:
    members = claims(nbf=NOW_S - 10)
    members[name] = value
    assert await setup.refusal(RSA.sign(members))


@pytest.mark.parametrize("name", ["exp", "iat"])
async def test_an_end_or_an_issue_at_0(setup: VerifierSetup, name: str) -> None:
    assert await setup.refusal(RSA.sign(claims(**{name: 0})))


@pytest.mark.parametrize("text", ["1e99", "Infinity", "-Infinity", "NaN", "1E10", "0x7fffffff"])
async def test_times_that_json_writes_strangely(setup: VerifierSetup, text: str) -> None:
    payload = json.dumps(claims(exp="EXP")).replace('"EXP"', text).encode()
    assert await setup.refusal(RSA.sign(payload))


@pytest.mark.parametrize(
    "members",
    [
        {"exp": NOW_S - 30},
        {"exp": NOW_S - 3_600},
        {"nbf": NOW_S + 31},
        {"iat": NOW_S + 31},
        {"iat": NOW_S - 10, "exp": NOW_S - 10},
        {"iat": NOW_S - 10, "exp": NOW_S - 11},
        {"iat": NOW_S - 3_000_000},
        {"exp": NOW_S + 3_000_000},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"aud": None},
        {"iss": None},
    ],
    ids=str,
)
async def test_over_or_not_yet_or_incomplete(setup: VerifierSetup, members: dict[str, Any]) -> None:
    assert await setup.refusal(RSA.sign(claims(**members)))


async def test_the_leeway_is_thirty_seconds(setup: VerifierSetup) -> None:
    for members in (
        {"exp": NOW_S - 29, "iat": NOW_S - 99},
        {"nbf": NOW_S + 30},
        {"iat": NOW_S + 30},
    ):
        assert await setup.verifier.verify(RSA.sign(claims(**members))) is not None


async def test_a_remembered_one_ends_when_its_time_comes(setup: VerifierSetup) -> None:
    text = RSA.sign(claims(exp=NOW_S + 5))
    for seconds, is_good in ((0, True), (34, True), (1, False)):
        setup.clock.advance(seconds)
        assert (await setup.verifier.verify(text) is not None) is is_good


NO_AUDIENCES: list[object] = [
    "",
    "Tollkeeper",
    "tollkeeper/",
    "tollkeeper ",
    "toll",
    "tollkeeper2",
    f"x {AUDIENCE}",
    [],
    ["account"],
    [[AUDIENCE]],
    [AUDIENCE, 1],
    [AUDIENCE, None],
    {AUDIENCE: 1},
    True,
    1,
    None,
]


@pytest.mark.parametrize("audience", NO_AUDIENCES, ids=repr)
async def test_audiences_that_are_not_ours(setup: VerifierSetup, audience: object) -> None:
    assert await setup.refusal(RSA.sign({**claims(), "aud": audience}))


async def test_one_audience_of_several_may_be_ours(setup: VerifierSetup) -> None:
    assert await setup.verifier.verify(RSA.sign(claims(aud=["account", AUDIENCE]))) is not None


NO_ISSUERS: list[object] = [
    ISSUER + "/",
    ISSUER.upper(),
    ISSUER.replace("id.", "ID."),
    ISSUER[:-1],
    ISSUER + "2",
    ISSUER.replace("https", "http"),
    ISSUER.replace("id.example.com", "id.example.com:443"),
    ISSUER.replace("id.example.com", "id.example.com."),
    ISSUER.replace("realms", "%72ealms"),
    ISSUER + "?",
    ISSUER + "#",
    " " + ISSUER,
    ISSUER + "\n",
    ISSUER + "\x00",
    ISSUER.replace("e", "\u0435"),
    [ISSUER],
    {"iss": ISSUER},
    True,
    1,
    None,
]


@pytest.mark.parametrize("iss", NO_ISSUERS, ids=repr)
async def test_issuers_that_are_nearly_the_one(setup: VerifierSetup, iss: object) -> None:
    assert await setup.refusal(RSA.sign({**claims(), "iss": iss}))


@pytest.mark.parametrize(
    "members",
    [
        {"typ": "ID"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"typ": "Logout"},
        {"typ": ["Bearer"]},
        {"typ": None, "nonce": "n"},
        {"at_hash": "x"},
        {"c_hash": "x"},
        {"s_hash": "x", "typ": "Bearer"},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        {"cnf": {"jkt": "x"}},
        {"cnf": {"x5t#S256": "x"}},
    ],
    ids=str,
)
async def test_an_id_token_or_another_kind(setup: VerifierSetup, members: dict[str, Any]) -> None:
    assert await setup.refusal(RSA.sign(claims(**members)))


@pytest.mark.parametrize(
    "typ", ["", "id+jwt", "logout+jwt", "dpop+jwt", "JOSE", "at+jwt ", "JWE", 1, ["JWT"], None]
)
async def test_a_typ_that_no_access_token_has(setup: VerifierSetup, typ: object) -> None:
    assert await setup.refusal(RSA.sign(claims(), {**HEADER, "typ": typ}))
    without = {name: value for name, value in HEADER.items() if name != "typ"}
    assert await setup.refusal(RSA.sign(claims(), without))


@pytest.mark.parametrize("typ", ["jwt", "JWT", "at+jwt", "AT+JWT", "application/at+jwt"])
async def test_a_typ_that_access_tokens_have(setup: VerifierSetup, typ: str) -> None:
    assert await setup.verifier.verify(RSA.sign(claims(), {**HEADER, "typ": typ})) is not None


def next_char(text: str) -> str:
    """Another spelling of the same bytes: the last character's unused bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


FORMS: dict[str, Callable[[str, str, str], str]] = {
    "padded": lambda h, p, s: f"{h}=.{p}=.{s}==",
    "padded signature": lambda h, p, s: f"{h}.{p}.{s}==",
    "trailing bits": lambda h, p, s: f"{h}.{p}.{next_char(s)}",
    "space before": lambda h, p, s: f" {h}.{p}.{s}",
    "space after": lambda h, p, s: f"{h}.{p}.{s} ",
    "newline after": lambda h, p, s: f"{h}.{p}.{s}\n",
    "newline inside": lambda h, p, s: f"{h}.{p}.\n{s}",
    "tab inside": lambda h, p, s: f"{h}.{p[:8]}\t{p[8:]}.{s}",
    "standard alphabet": lambda h, p, s: f"{h}.{p}.{s.replace('-', '+').replace('_', '/')}",
    "four parts": lambda h, p, s: f"{h}.{p}.{s}.{s}",
    "five parts": lambda h, p, s: f"{h}.{p}.{s}.{s}.{s}",
    "two parts": lambda h, p, s: f"{h}.{p}",
    "one part": lambda h, p, s: h,
    "empty end": lambda h, p, s: f"{h}.{p}.",
    "empty middle": lambda h, p, s: f"{h}..{s}",
    "dot after": lambda h, p, s: f"{h}.{p}.{s}.",
    "only dots": lambda h, p, s: "..",
    "nothing": lambda h, p, s: "",
    "flattened JSON": lambda h, p, s: json.dumps({"protected": h, "payload": p, "signature": s}),
    "general JSON": lambda h, p, s: json.dumps(
        {"payload": p, "signatures": [{"protected": h, "signature": s}]}
    ),
    "not ASCII": lambda h, p, s: f"{h}.{p}.{s[:-1]}\u0430",
    "surrogate": lambda h, p, s: f"{h}.{p}.{s}\udc80",
    "high surrogate": lambda h, p, s: f"{h}.{p}.{s}\ud800",
    "NUL": lambda h, p, s: f"{h}.{p}.{s}\x00",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
async def test_other_forms_of_the_same_jwt(setup: VerifierSetup, form: Callable[..., str]) -> None:
    assert await setup.verifier.verify(GOOD) is not None
    assert await setup.refusal(form(*GOOD.split(".")))


async def test_an_encrypted_one(setup: VerifierSetup) -> None:
    header = b64(json.dumps({"alg": "RSA-OAEP", "enc": "A256GCM"}).encode())
    assert await setup.refusal(f"{header}.{b64(b'key')}.{b64(b'iv')}.{b64(b'text')}.{b64(b'tag')}")


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(claims()).replace('"sub"', '"sub": "root", "sub"').encode(),
        json.dumps(claims()).replace('"exp"', '"exp": 1, "exp"').encode(),
        json.dumps(claims(a={"b": 1})).replace('"b": 1', '"b": 1, "b": 2').encode(),
        json.dumps(claims()).encode("utf-16"),
        json.dumps(claims()).encode("utf-32-be"),
        b"\xef\xbb\xbf" + json.dumps(claims()).encode(),
        json.dumps(claims()).replace("ada", "ad\xe9").encode("latin-1"),
        json.dumps(claims()).encode() + b"{}",
        json.dumps([claims()]).encode(),
        b'"text"',
        b"1",
        b"null",
        json.dumps(claims()).replace('"ada"', "NaN").encode(),
    ],
)
async def test_payloads_that_could_be_read_in_two_ways(
    setup: VerifierSetup, payload: bytes
) -> None:
    assert await setup.refusal(RSA.sign(payload))


async def test_headers_that_could_be_read_in_two_ways(setup: VerifierSetup) -> None:
    header = json.dumps(HEADER).replace('"alg"', '"alg": "none", "alg"').encode()
    assert await setup.refusal(RSA.sign(claims(), header))
    assert await setup.refusal(RSA.sign(claims(), json.dumps(HEADER).encode("utf-16")))


@pytest.mark.parametrize(
    "subject", ["", " ", "ada ", "a\x00b", "a\nb", "\ud800", "x" * 513, 1, True, ["ada"], None, {}]
)
async def test_subjects_that_name_nobody(setup: VerifierSetup, subject: object) -> None:
    assert await setup.refusal(RSA.sign({**claims(), "sub": subject}))


def deep(opening: str, closing: str, depth: int) -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


HUGE: dict[str, Callable[[], str]] = {
    "1 MB payload": lambda: f"{b64(json.dumps(HEADER).encode())}.{'A' * 2**20}.AAAA",
    "1 MB signature": lambda: f"{GOOD}{'A' * 2**20}",
    "1 MB header": lambda: f"{'A' * 2**20}.AAAA.AAAA",
    "1 MB of dots": lambda: "." * 2**20,
    "lists 100,000 deep": lambda: RSA.sign(deep("[", "]", 100_000)),
    "objects 100,000 deep": lambda: RSA.sign(deep('{"a":', "}", 100_000)),
    "header 100,000 deep": lambda: RSA.sign(claims(), deep('{"a":', "}", 100_000)),
    "lists as deep as fits": lambda: RSA.sign(deep("[", "]", 18_000)),
    "objects as deep as fits": lambda: RSA.sign(deep('{"a":', "}", 6_000)),
    "a claim as deep as fits": lambda: RSA.sign(
        json.dumps(claims(a=0)).replace('"a": 0', f'"a": {"[" * 17_000}{"]" * 17_000}').encode()
    ),
    "a long number": lambda: RSA.sign(b'{"exp": ' + b"9" * 5_000 + b"}"),
    "many members": lambda: RSA.sign(json.dumps({f"{n:x}": n for n in range(450)}).encode()),
    "members that fit": lambda: RSA.sign(json.dumps({f"{n:x}": n for n in range(2_400)}).encode()),
    "values that fit": lambda: RSA.sign(json.dumps({"a": [{} for _ in range(1_900)]}).encode()),
    "text that fits": lambda: RSA.sign(claims(a="x" * 36_000, aud="b")),
    "numbers that fit": lambda: RSA.sign(json.dumps({"a": [10**4_200] * 8}).encode()),
}


@pytest.mark.parametrize("make", HUGE.values(), ids=HUGE.keys())
async def test_big_ones_cost_little(setup: VerifierSetup, make: Callable[[], str]) -> None:
    text = make()
    await setup.refusal(text)
    costs_s = []
    for _ in range(9):
        began_s = time.process_time()
        assert await setup.verifier.verify(text) is None
        costs_s.append(time.process_time() - began_s)
    assert statistics.median(costs_s) < CPU_LIMIT_S * slowness()


def test_the_attacks_that_fit_are_within_the_length() -> None:
    fitting = [make() for name, make in HUGE.items() if "fit" in name or "long number" in name]
    assert all(len(text) <= MAX_JWT_CHARS for text in fitting)


OTHER = "https://other.example.com"


async def test_two_issuers_with_the_same_names_never_mix() -> None:
    mine, theirs = signer("ES256"), signer("ES256")
    setup = VerifierSetup(mine)
    other = issuer(issuer_id="other", url=OTHER)
    setup.store.issuers["other"] = stored(other, [theirs.jwk], NOW)
    for by, iss, issuer_id in ((mine, ISSUER, "main"), (theirs, OTHER, "other")):
        verified = await setup.verifier.verify(by.sign(claims(iss=iss)))
        assert isinstance(verified, VerifiedIdentity)
        assert (verified.issuer_id, verified.subject) == (issuer_id, "ada")
    assert await setup.refusal(mine.sign(claims(iss=OTHER)))
    assert await setup.refusal(theirs.sign(claims(iss=ISSUER)))


async def test_a_foreign_issuer_cannot_speak_for_us(setup: VerifierSetup) -> None:
    pass_like = claims(iss=setup.own.url, aud=setup.own.audience, jti="a" * 20)
    assert await setup.refusal(RSA.sign(pass_like, {**HEADER, "typ": "at+jwt"}))


async def test_a_small_key_signature_for_another_curve(setup: VerifierSetup) -> None:
    """An Ed25519 signature of 64 bytes under an ES256 header, and the other way round."""
    curve = signer("ES256")
    setup = VerifierSetup(curve)
    edwards = ed25519.Ed25519PrivateKey.generate()
    header = {"alg": "ES256", "kid": "key-1", "typ": "JWT"}
    signed = curve.sign(claims(), header).rpartition(".")[0]
    assert await setup.refusal(f"{signed}.{b64(edwards.sign(signed.encode()))}")
    for nothing in (b"\x00" * 64, b"\x00" * 63 + b"\x01", b"", hashlib.sha512(b"x").digest()):
        assert await setup.refusal(f"{signed}.{b64(nothing)}")
