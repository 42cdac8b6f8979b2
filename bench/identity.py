"""Measures the cost of each kind of credential and of limits, in turns on one running stack."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from bench.load import PATH, Slice, median, run_slice, write_script, write_scripts_of_many
from bench.processes import cpu_seconds
from bench.stack import ACCOUNT, BenchStack

CONNECTIONS: Final = 16
SLICE_S: Final = 1
# More than are asked in a second: none is seen twice.
JWTS_A_SLICE: Final = 4_000
ISSUER: Final = "https://{}.bench.invalid"
AUDIENCE: Final = "bench"
# As high as never to refuse: what is measured is the counting.
PLENTY: Final = 1_000_000
MANY_AT_ONCE: Final = 10_000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to ask: a script for each slice."""

    name: str
    scripts: Sequence[Path]


async def measure_identity(
    stack: BenchStack, folder: Path, slices: int, say: Say
) -> dict[str, Any]:
    """Requests a second and CPU of authz by credential, at 16 connections, in turns."""
    say("making JWTs, seen once each")
    variants = await _variants(stack, folder, slices)
    taken: dict[str, list[Slice]] = {variant.name: [] for variant in variants}
    cpu: dict[str, list[float]] = {variant.name: [] for variant in variants}
    url = stack.gateway + PATH
    for number in range(slices):
        say(f"credentials and limits, slice {number + 1} of {slices}")
        for variant in variants:
            before = cpu_seconds(stack.processes())
            done = run_slice(url, variant.scripts[number], CONNECTIONS, SLICE_S)
            after = cpu_seconds(stack.processes())
            taken[variant.name].append(done)
            cpu[variant.name].append((after["authz"] - before["authz"]) / done.requests * 1e6)
    return {name: _row(taken[name], taken["key"], cpu[name]) for name in taken}


def _row(own: list[Slice], keys: list[Slice], cpu: list[float]) -> dict[str, Any]:
    ratios = [one.per_second / key.per_second for one, key in zip(own, keys, strict=True)]
    return {
        "per_second": round(median([each.per_second for each in own])),
        "to_key": round(median(ratios), 2),
        "authz_cpu_us": round(median(cpu)),
        "p50_ms": round(median([each.p50_ms for each in own]), 2),
        "refused": sum(each.failed for each in own),
    }


async def _variants(stack: BenchStack, folder: Path, slices: int) -> list[Variant]:
    pass_ = await asyncio.to_thread(stack.ask, "POST", f"/users/{ACCOUNT}/passes", {})
    kept = {"key": stack.key, "pass": pass_["access_token"]}
    kept |= await asyncio.to_thread(_limited_keys, stack)
    variants = [
        Variant(name, [_script(folder, name, credential)] * slices)
        for name, credential in kept.items()
    ]
    for algorithm, make in _MAKERS.items():
        private, public = make()
        issuer = f"bench-{algorithm.lower()}"
        await _believe(stack, issuer, algorithm, public)
        files = [
            write_scripts_of_many(
                folder / f"{issuer}-{number}.lua",
                (_sign(private, issuer, algorithm, number, n) for n in range(JWTS_A_SLICE)),
            )
            for number in range(slices)
        ]
        variants.append(Variant(f"JWT first seen, {algorithm}", files))
        once = _sign(private, issuer, algorithm, slices, 0)
        known = _script(folder, issuer, once)
        variants.append(Variant(f"JWT from memory, {algorithm}", [known] * slices))
    return variants


def _script(folder: Path, name: str, credential: str) -> Path:
    path = folder / f"{name.replace(' ', '-')}.lua"
    write_script(path, credential)
    return path


def _limited_keys(stack: BenchStack) -> dict[str, str]:
    """Keys of accounts of their own, by what counts and never refuses."""
    rates = {"requests_per_minute": PLENTY, "tokens_per_minute": PLENTY}
    limited = _key(stack, "limited", rates, {"limits": rates})
    every = {"limits": {**rates, "concurrent_requests": MANY_AT_ONCE}}
    rule = {"applies_to": "user", "applies_id": "everything", "counted_per": "rule"}
    all_limits = _key(stack, "everything", rates, every)
    stack.ask("PUT", "/limits/bench", {**rule, "requests_per_minute": PLENTY})
    of_models = {**rule, "model_pattern": "openai/*", "tokens_per_minute": PLENTY}
    stack.ask("PUT", "/limits/bench-models", of_models)
    budget = _key(stack, "budgeted", {}, {"budgets": {"month": "1000000.00"}})
    return {
        "key with limits of requests and tokens": limited,
        "key with a budget": budget,
        "key with all limits on": all_limits,
    }


def _key(stack: BenchStack, user: str, rates: dict[str, int], terms: dict[str, Any]) -> str:
    new = {"id": user, "email": f"{user}@example.com", "plan": "unlimited"}
    stack.ask("POST", "/users", new)
    stack.ask("POST", f"/users/{user}/credits", {"amount": "100000.00", "reason": "bench"})
    if rates:
        stack.ask("PATCH", f"/users/{user}", rates)
    key: str = stack.ask("POST", f"/users/{user}/api-keys", {"name": "bench", **terms})["key"]
    return key


def _sign(private: Any, issuer: str, algorithm: str, slice_number: int, number: int) -> str:
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER.format(issuer),
        "aud": AUDIENCE,
        "sub": "bench",
        "iat": now,
        "exp": now + timedelta(hours=1),
        "jti": f"{slice_number}-{number}",
    }
    return jwt.encode(claims, private, algorithm, {"kid": "bench", "typ": "JWT"})


async def _believe(stack: BenchStack, issuer: str, algorithm: str, public: dict[str, Any]) -> None:
    """An issuer whose keys were fetched already: nothing here asks the network."""
    family = {"RS256": "RS", "ES256": "ES", "EdDSA": "EdDSA"}[algorithm]
    url = ISSUER.format(issuer)
    terms = {
        "audiences": [AUDIENCE],
        "algorithms": family,
        "default_scopes": ["inference"],
        "may_create_accounts": True,
        "default_plan": "unlimited",
    }
    await asyncio.to_thread(stack.ask, "PUT", f"/issuers/{issuer}", {"url": url, "terms": terms})
    kept = {"issuer": url, "jwks_url": None, "algorithms": family, "keys": [public]}
    connection = await asyncpg.connect(stack.database)
    try:
        await connection.execute(
            "UPDATE issuers SET keys = $2, keys_fetched_at = now() WHERE id = $1",
            issuer,
            json.dumps(kept),
        )
    finally:
        await connection.close()
    await asyncio.to_thread(_first_sight, stack, issuer)


def _first_sight(stack: BenchStack, issuer: str) -> None:
    """Make the account that the issuer's JWTs speak for, and give it credit."""
    user = {"id": issuer, "email": f"{issuer}@example.com", "plan": "unlimited"}
    stack.ask("POST", "/users", user)
    stack.ask("POST", f"/users/{issuer}/credits", {"amount": "100000.00", "reason": "bench"})
    stack.ask("PUT", f"/users/{issuer}/identities", {"issuer": issuer, "subject": "bench"})


def _rsa() -> tuple[Any, dict[str, Any]]:
    key = rsa.generate_private_key(65_537, 2_048)
    return key, _jwk(RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))


def _ec() -> tuple[Any, dict[str, Any]]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _jwk(ECAlgorithm.to_jwk(key.public_key(), as_dict=True))


def _ed() -> tuple[Any, dict[str, Any]]:
    key = ed25519.Ed25519PrivateKey.generate()
    return key, _jwk(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True))


def _jwk(members: dict[str, Any]) -> dict[str, Any]:
    members.pop("key_ops", None)
    return {**members, "kid": "bench", "use": "sig"}


_MAKERS: Final = {"RS256": _rsa, "ES256": _ec, "EdDSA": _ed}
