"""The providers that may serve a model."""

from meter.pricing.prices import Offer
from meter.routing.route import ModelAlias, Route, RouteProvider
from meter.routing.table import RoutingTable
from tests.fakes import model

BOTH = frozenset({"openrouter", "near", "far"})
LISTED = {one.id: one for one in (model("acme/one"), model("acme/two"))}
OFFERS = [
    Offer("near", "one", model("acme/one", prompt_picos=7)),
    Offer("far", "uno", model("acme/one", prompt_picos=9)),
    Offer("near", "own", model("near/own")),
]


def route(route_id: str, pattern: str, *providers: str, position: int = 100) -> Route:
    named = tuple(RouteProvider(one, priority) for priority, one in enumerate(providers))
    return Route(route_id, pattern, named, position)


def ways(table: RoutingTable, model_id: str) -> list[str]:
    return [offer.provider for offer in table.ways(model_id)]


def test_without_routes_openrouter_comes_first_and_others_serve_what_it_does_not_list() -> None:
    table = RoutingTable(LISTED, OFFERS, enabled=BOTH)
    assert ways(table, "acme/one") == ["openrouter"]
    assert ways(table, "near/own") == ["near"]
    assert ways(table, "acme/none") == []
    assert table.models.keys() == {"acme/one", "acme/two", "near/own"}
    assert table.models["acme/one"] is LISTED["acme/one"]
    assert [offer.provider for offer in table.offers("acme/one")] == ["far", "near", "openrouter"]
    assert not table.is_plain
    assert RoutingTable(LISTED).is_plain


def test_a_disabled_provider_serves_nothing() -> None:
    table = RoutingTable(LISTED, OFFERS, enabled=frozenset({"near"}))
    assert ways(table, "acme/one") == ["near"]
    assert "acme/two" not in table.models
    by_route = RoutingTable(LISTED, OFFERS, [route("a", "*", "far")], enabled=frozenset({"near"}))
    assert ways(by_route, "acme/one") == []


def test_the_id_of_a_model_takes_precedence_over_patterns_and_those_over_later_ones() -> None:
    routes = [
        route("last", "*", "openrouter", position=9),
        route("first", "acme/*", "near", position=1),
        route("exact", "acme/two", "openrouter", "near", position=5),
    ]
    table = RoutingTable(LISTED, OFFERS, routes, enabled=BOTH)
    found = [table.find_route(one) for one in ("acme/two", "acme/one", "x")]
    assert [one.id if one else None for one in found] == ["exact", "first", "last"]
    # A provider of a route that does not offer the model is passed over.
    assert ways(table, "acme/two") == ["openrouter"]


def test_a_route_is_the_only_way_to_its_models() -> None:
    table = RoutingTable(LISTED, OFFERS, [route("a", "acme/*", "near")], enabled=BOTH)
    assert ways(table, "acme/one") == ["near"]
    assert ways(table, "acme/two") == []


def test_an_alias_hides_a_later_model_and_a_redirect_gives_way_to_one() -> None:
    aliases = [
        ModelAlias("fast", "near/own"),
        ModelAlias("acme/two", "acme/one"),
        ModelAlias("near/own", "acme/one", is_redirect=True),
        ModelAlias("acme/old", "acme/one", is_redirect=True),
        ModelAlias("lost", "acme/gone"),
    ]
    table = RoutingTable(LISTED, OFFERS, (), aliases, BOTH)
    meant = {name: one.id for name, one in table.models.items()}
    assert meant == {
        "acme/one": "acme/one",
        "near/own": "near/own",
        "fast": "near/own",
        "acme/two": "acme/one",
        "acme/old": "acme/one",
    }
