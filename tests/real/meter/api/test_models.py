"""The catalogue as clients read it: whole for anybody, a caller's own part at its prices."""

from typing import Any

from meter.pricing.catalogue_store import PostgresCatalogue
from tests.books import MODEL, Books, offered
from tests.meter_api import ADMIN, MeterApi

BASES = ("/v1", "/api/v1/llm", "/api/v1")
# The members that OpenRouter's schema requires of a model.
REQUIRED = {
    "id",
    "canonical_slug",
    "name",
    "created",
    "context_length",
    "architecture",
    "pricing",
    "top_provider",
    "per_request_limits",
    "supported_parameters",
    "default_parameters",
    "supported_voices",
    "links",
}


async def list_models(books: Books, *more: str, **listing: Any) -> None:
    """Make the catalogue the model of the books, described so, and more models."""
    described = offered(listing=listing)
    await PostgresCatalogue(books.pool).save(
        "openrouter", [described, *(offered(model_id) for model_id in more)]
    )


async def test_every_base_lists_all_that_the_schema_requires(books: Books, api: MeterApi) -> None:
    await list_models(books, "acme/new")
    for base in BASES:
        listed = (await api.anybody.get(f"{base}/models")).json()
        assert (listed["total_count"], listed["links"]) == (2, {"next": None})
        assert all(model.keys() >= REQUIRED for model in listed["data"])
        for model in listed["data"]:
            assert (await api.anybody.get(f"{base}/models/{model['id']}")).json() == model
            described = await api.anybody.get(f"{base}/model/{model['id']}")
            assert described.json() == {"data": model}
        counted = await api.anybody.get(f"{base}/models/count")
        assert counted.json() == {"data": {"count": 2}}
        assert (await api.anybody.get(f"{base}/models/user")).json() == listed


async def test_a_member_of_another_type_is_not_passed_on(books: Books, api: MeterApi) -> None:
    await list_models(
        books,
        canonical_slug=7,
        description=None,
        architecture={"input_modalities": "text", "tokenizer": None, "modality": ["x"]},
        top_provider={"is_moderated": "no", "context_length": "many"},
        supported_parameters=["tools", 1],
        supported_voices={},
        default_parameters={"temperature": "hot", "top_k": 3},
        per_request_limits={"prompt_tokens": True},
        reasoning={"mandatory": "perhaps"},
    )
    (model,) = (await api.anybody.get("/v1/models")).json()["data"]
    assert model["canonical_slug"] == MODEL
    assert "description" not in model
    assert "reasoning" not in model
    assert model["architecture"] == {
        "modality": None,
        "input_modalities": ["text"],
        "output_modalities": ["text"],
        "instruct_type": None,
    }
    assert model["top_provider"]["is_moderated"] is False
    assert model["top_provider"]["context_length"] == model["context_length"]
    assert model["supported_parameters"] == ["tools"]
    assert model["supported_voices"] is None
    assert model["default_parameters"] == {"top_k": 3}
    assert model["per_request_limits"] is None


async def test_pages_lead_to_the_end(books: Books, api: MeterApi) -> None:
    await list_models(books, "acme/a", "acme/b")
    found: list[str] = []
    path: str | None = "/api/v1/models?limit=2&offset=0"
    while path is not None:
        page = (await api.anybody.get(path)).json()
        found += [model["id"] for model in page["data"]]
        path = page["links"]["next"]
    assert found == ["acme/a", "acme/b", MODEL]
    assert (await api.anybody.get("/v1/models?limit=2&offset=9")).json()["data"] == []
    refused = await api.anybody.get("/v1/models?limit=0")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")


async def test_a_caller_sees_its_models_and_its_prices(books: Books, api: MeterApi) -> None:
    await list_models(books, "acme/a", "acme/b")
    await api.user("ada")
    await api.operator.patch(f"{ADMIN}/users/ada", json={"markup_bps": 1_234})
    key = await api.key("ada", allowed_models=["acme/*", "openai/none"])
    answer = await api.as_key(key["key"], "/v1/models")
    assert answer.headers["cache-control"].startswith("private")
    assert "authorization" in answer.headers["vary"].lower()
    models = answer.json()["data"]
    assert [model["id"] for model in models] == ["acme/a", "acme/b"]
    # 0.00000015 and 12.34 %, to the last digit.
    assert models[0]["pricing"]["prompt"] == "0.00000016851"
    assert (await api.as_key(key["key"], f"/v1/models/{MODEL}")).status_code == 404
    public = await api.anybody.get("/v1/models")
    assert public.json()["total_count"] == 3
    assert public.headers["cache-control"].startswith("public")
    # The terms of a key are read for each request.
    body = {"allowed_models": [MODEL]}
    await api.operator.patch(f"{ADMIN}/users/ada/api-keys/{key['id']}", json=body)
    (model,) = (await api.as_key(key["key"], "/v1/models")).json()["data"]
    assert model["id"] == MODEL


async def test_anybody_else_sees_all(books: Books, api: MeterApi) -> None:
    await list_models(books)
    await api.user("ada")
    elsewhere = await api.key("ada", allowed_models=["no/such"], allowed_addresses=["10.9.9.9/32"])
    for key in ("none-is-needed", elsewhere["key"]):
        answer = await api.as_key(key, "/v1/models")
        assert (answer.status_code, answer.json()["total_count"]) == (200, 1)
    assert (await api.operator.get("/v1/models")).json()["total_count"] == 1


async def test_head_answers_as_get_does(books: Books, api: MeterApi) -> None:
    await list_models(books)
    await api.user("ada")
    key = await api.key("ada")
    authorization = {"Authorization": f"Bearer {key['key']}"}
    for path in ("/v1/models", f"/v1/models/{MODEL}", "/api/v1/credits", "/openapi.json"):
        got = await api.anybody.get(path, headers=authorization)
        head = await api.anybody.head(path, headers=authorization)
        assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers["content-length"] == got.headers["content-length"]
    assert (await api.anybody.head("/api/v1/credits")).status_code == 401
    assert (await api.anybody.head("/api/v1/auth/token")).status_code == 405
