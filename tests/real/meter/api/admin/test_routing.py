"""Routes and aliases, as administrators set them."""

from typing import Any

from meter.pricing.catalogue_store import PostgresCatalogue
from meter.routing.table_store import RoutingStore
from tests.books import MODEL, Books, offered
from tests.meter_api import ADMIN, MeterApi

ROUTE: dict[str, Any] = {
    "pattern": "openai/*",
    "position": 7,
    "providers": [
        {"provider": "near", "priority": 0, "weight": 3},
        {"provider": "openrouter", "priority": 1, "weight": 1},
    ],
}


async def with_provider(books: Books, provider: str = "near") -> PostgresCatalogue:
    """Return the catalogue, with a provider that offers the model of the books and one more."""
    await books.pool.execute(
        "INSERT INTO providers (id, dialect, base_url) VALUES ($1, 'openai', 'http://near.test/v1')",
        provider,
    )
    catalogue = PostgresCatalogue(books.pool)
    both = [offered(upstream_name="gpt-test", prompt_picos=90_000), offered("near/only")]
    await catalogue.save(provider, both)
    return catalogue


async def test_a_route_is_set_changed_and_removed(books: Books, api: MeterApi) -> None:
    catalogue = await with_provider(books)
    path = f"{ADMIN}/routes/gpt"
    made = await api.operator.put(path, json=ROUTE)
    assert (made.status_code, made.json()) == (201, {"id": "gpt", **ROUTE})
    listed, offers = await catalogue.load_models(), await catalogue.load_offers()
    loaded = await RoutingStore(books.pool).load(listed, offers)
    ways = loaded.table.ways(MODEL)
    assert [(one.provider, one.upstream_name) for one in ways] == [
        ("near", "gpt-test"),
        ("openrouter", MODEL),
    ]
    assert ways[0].model.price.prompt_picos == 90_000
    assert loaded.dialects == {"near": "openai", "openrouter": "openrouter"}
    shorter = {"pattern": MODEL, "providers": [{"provider": "near"}]}
    changed = await api.operator.put(path, json=shorter)
    whole = [{"provider": "near", "priority": 0, "weight": 1}]
    assert changed.status_code == 200
    assert changed.json() == {"id": "gpt", "pattern": MODEL, "position": 100, "providers": whole}
    assert (await api.operator.get(path)).json() == changed.json()
    assert (await api.operator.get(f"{ADMIN}/routes")).json() == {"data": [changed.json()]}
    # A provider that a route leads to stays.
    assert (await api.operator.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await api.operator.request(method, path)).status_code == 404
    audit = (await api.operator.get(f"{ADMIN}/audit-log")).json()["data"]
    actions = [line["action"] for line in audit if line["action"].startswith("route.")]
    assert actions == ["route.removed", "route.set", "route.set"]


async def test_routes_that_could_never_serve_are_refused(books: Books, api: MeterApi) -> None:
    await with_provider(books)
    assert (await api.operator.put(f"{ADMIN}/routes/gpt", json=ROUTE)).status_code == 201
    for change, status, words in (
        ({"providers": [{"provider": "nowhere"}]}, 422, "no provider 'nowhere'"),
        ({"pattern": "near/*"}, 422, "'openrouter' offers no model"),
        ({"pattern": "openai/gpt-mistyped"}, 422, "'near' offers no model"),
        ({"providers": []}, 422, "providers"),
        ({"providers": [{"provider": "near"}, {"provider": "near"}]}, 422, "named twice"),
        ({"providers": [{"provider": "near", "weight": 0}]}, 422, "weight"),
        ({"pattern": "openai/*"}, 409, "the route 'gpt' has the pattern"),
    ):
        answer = await api.operator.put(f"{ADMIN}/routes/other", json={**ROUTE, **change})
        assert answer.status_code == status, answer.text
        assert words in answer.text
    assert (await api.operator.put(f"{ADMIN}/routes/No", json=ROUTE)).status_code == 422


async def test_an_alias_is_set_changed_and_removed(books: Books, api: MeterApi) -> None:
    catalogue = await with_provider(books)
    path = f"{ADMIN}/aliases"
    made = await api.operator.put(f"{path}/fast", json={"model": MODEL})
    assert made.status_code == 201
    assert made.json() == {"name": "fast", "model": MODEL, "is_redirect": False}
    again = await api.operator.put(f"{path}/fast", json={"model": "near/only"})
    assert (again.status_code, again.json()["model"]) == (200, "near/only")
    old = {"model": MODEL, "is_redirect": True}
    assert (await api.operator.put(f"{path}/openai/gpt-old", json=old)).status_code == 201
    assert (await api.operator.put(f"{path}/near/only", json=old)).status_code == 201
    names = [one["name"] for one in (await api.operator.get(path)).json()["data"]]
    assert names == ["fast", "near/only", "openai/gpt-old"]
    listed, offers = await catalogue.load_models(), await catalogue.load_offers()
    table = (await RoutingStore(books.pool).load(listed, offers)).table
    # The redirect of a model that is still offered does not apply yet.
    assert {name: one.model_id for name, one in table.aliases.items()} == {
        "fast": "near/only",
        "openai/gpt-old": MODEL,
    }
    for name, body, status, words in (
        ("fast", {"model": "openai/gpt-mistyped"}, 422, "nobody offers a model"),
        ("quick", {"model": "fast"}, 422, "is an alias itself"),
        (MODEL, {"model": "near/only"}, 409, "an alias would hide it"),
        ("fast:online", {"model": MODEL}, 422, "does not end with :online"),
        ("a/.b", {"model": MODEL}, 422, "name"),
    ):
        answer = await api.operator.put(f"{path}/{name}", json=body)
        assert answer.status_code == status, answer.text
        assert words in answer.text
    for status in (204, 404):
        assert (await api.operator.delete(f"{path}/openai/gpt-old")).status_code == status


async def test_models_are_listed_as_the_provider_that_is_asked_first_serves_them(
    books: Books, api: MeterApi
) -> None:
    await with_provider(books)
    for path, body in (
        ("routes/gpt", {"pattern": MODEL, "providers": [{"provider": "near"}]}),
        ("aliases/fast", {"model": MODEL}),
        ("aliases/acme/old", {"model": MODEL, "is_redirect": True}),
    ):
        assert (await api.operator.put(f"{ADMIN}/{path}", json=body)).status_code == 201
    listed = {one["id"]: one for one in (await api.anybody.get("/v1/models")).json()["data"]}
    assert listed.keys() == {MODEL, "near/only", "fast"}
    assert listed[MODEL]["pricing"]["prompt"] == "0.00000009"
    assert listed["fast"]["pricing"] == listed[MODEL]["pricing"]
    assert (listed["fast"]["alias_of"], "alias_of" in listed[MODEL]) == (MODEL, False)
    assert (await api.anybody.get("/v1/models/fast")).json() == listed["fast"]
    assert (await api.anybody.get("/v1/models/acme/old")).status_code == 404
