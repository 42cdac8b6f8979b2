"""The providers that may serve each model: the catalogue, offers, routes and names in one table.

The table is pure, and the same for decisions and for `GET /v1/models`. It knows no keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from meter.pricing.prices import DEFAULT_PROVIDER, Model, Offer
from meter.routing.route import ModelAlias, Route

_DEFAULT_ONLY: Final = frozenset({DEFAULT_PROVIDER})


class RoutingTable:
    """The offers of all enabled providers, with the routes and the names of models.

    `listed` are the models of OpenRouter, `offers` those of the other providers. What a provider
    that is not `enabled` offers is left out.
    """

    def __init__(
        self,
        listed: Mapping[str, Model],
        offers: Iterable[Offer] = (),
        routes: Sequence[Route] = (),
        aliases: Sequence[ModelAlias] = (),
        enabled: frozenset[str] = _DEFAULT_ONLY,
    ) -> None:
        self.enabled = enabled
        self._listed = listed if DEFAULT_PROVIDER in enabled else {}
        self._offers: dict[str, list[Offer]] = {}
        for offer in sorted(offers, key=lambda one: one.provider):
            if offer.provider in enabled:
                self._offers.setdefault(offer.model.id, []).append(offer)
        self._exact = {route.pattern: route for route in routes if route.is_exact}
        self._patterns = sorted(
            (route for route in routes if not route.is_exact),
            key=lambda route: (route.position, route.id),
        )
        self._ways: dict[str, tuple[Offer, ...]] = {}
        models = self._listed
        if self._offers:
            first = {model_id: offers[0].model for model_id, offers in self._offers.items()}
            models = {**first, **models}
        # A redirect gives way to a model of its name, an alias does not.
        used = [
            alias
            for alias in aliases
            if alias.model_id in models and not (alias.is_redirect and alias.name in models)
        ]
        self.aliases: Mapping[str, ModelAlias] = {alias.name: alias for alias in used}
        if used:
            models = {**models, **{alias.name: models[alias.model_id] for alias in used}}
        # By every name that a request may use. An alias has the model that it means.
        self.models: Mapping[str, Model] = models
        # Whether all models are OpenRouter's, by their own names and without routes.
        self.is_plain = not (self._offers or routes or used)

    @property
    def all_models(self) -> Iterable[Model]:
        """Return every model of every provider, each with the price of that provider."""
        yield from self._listed.values()
        for offers in self._offers.values():
            for offer in offers:
                yield offer.model

    def find_listed(self, model_id: str) -> Model | None:
        """Return the model as OpenRouter offers it; None where it does not."""
        return self._listed.get(model_id)

    def find_route(self, model_id: str) -> Route | None:
        """Return the route that a model takes; None where it has none."""
        exact = self._exact.get(model_id)
        if exact is not None:
            return exact
        return next((r for r in self._patterns if fnmatchcase(model_id, r.pattern)), None)

    def offers(self, model_id: str) -> list[Offer]:
        """Return all offers of a model: other providers' by their ids, then OpenRouter's."""
        offers = list(self._offers.get(model_id, ()))
        if (model := self._listed.get(model_id)) is not None:
            offers.append(Offer(DEFAULT_PROVIDER, model_id, model))
        return offers

    def ways(self, model_id: str) -> tuple[Offer, ...]:
        """Return the offers that may serve a model, those that are asked first at the beginning.

        With a route: the offers of its providers, and no other. Without one: OpenRouter's, where
        there is one, else those of all providers. Empty where nobody may serve the model.
        """
        ways = self._ways.get(model_id)
        if ways is None:
            offers, route = self.offers(model_id), self.find_route(model_id)
            if route is not None:
                by_provider = {offer.provider: offer for offer in offers}
                in_turn = sorted(route.providers, key=lambda one: (one.priority, one.provider))
                offers = [by_provider[o.provider] for o in in_turn if o.provider in by_provider]
            elif offers and offers[-1].provider == DEFAULT_PROVIDER:
                del offers[:-1]
            ways = self._ways[model_id] = tuple(offers)
        return ways
