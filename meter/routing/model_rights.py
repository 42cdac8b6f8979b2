"""The models that a principal may use, by the lists of its credential. Pure."""

from fnmatch import fnmatchcase

from meter.identity.principal import Principal
from meter.routing.route import ModelAlias


def may_use(principal: Principal, model_id: str, name: str, alias: ModelAlias | None) -> bool:
    """Return whether each list of a principal allows a model.

    `name` is the model as the request writes it, with suffixes; `alias` is the alias that it names,
    None where it is the model's own name.
    """
    if not principal.model_lists:
        return True
    exact: tuple[str, ...] = (model_id, name)
    matched = exact
    if alias is not None:
        # Patterns were written for models, so an alias that happens to match one must not lead to
        # a model that none matches. Whoever lists the alias itself allows what it means. The name
        # of a retired model is no such permission: its list was made for that model.
        matched = (model_id,)
        exact = matched if alias.is_redirect else (model_id, alias.name)
    return all(
        any(fnmatchcase(one, pattern) for pattern in patterns for one in matched)
        for patterns in principal.model_lists
        if patterns.isdisjoint(exact)
    )
