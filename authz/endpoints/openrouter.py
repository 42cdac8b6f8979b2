"""The members of a request body that only OpenRouter knows, and what they may cost.

- `models` names fallbacks beside `model`; the suffixes of a model's name say how to route to it,
  and `:online` adds web search to the request;
- `plugins` run at OpenRouter; searches and recognised files are billed apart from tokens;
- `preset` stands for parameters that are stored at OpenRouter, where they cannot be read;
- `trace` is repeated in OpenRouter's report of the request (Broadcast).

`provider`, `transforms` and `route` pass as they are: they choose among the providers of a model,
or shorten the prompt (docs/adr/0005-what-bounds-an-estimate.md says what that leaves unbounded).
"""

from collections.abc import Mapping
from typing import Any, Final

from authz.decision import Edit, Reason, Refused, deny
from authz.endpoints.body import Body, byte_offset, member_spans, replace_value
from authz.endpoints.members import count, invalid, refuse_misspelt, unbounded
from meter.pricing.prices import Model
from meter.providers.openrouter.broadcast import TAG_MEMBER

MAX_FALLBACKS: Final = 16
# No listed model has a longer id. Suffixes are removed one at a time, each with a copy of the rest.
MAX_MODEL_NAME_CHARS: Final = 256
ONLINE_SUFFIX: Final = ":online"
# These say how to route to a listed model. `:free` and others are models of their own.
ROUTING_SUFFIXES: Final = (ONLINE_SUFFIX, ":nitro", ":floor")

MAX_WEB_RESULTS: Final = 10
DEFAULT_WEB_RESULTS: Final = 5
FREE_PLUGINS: Final = frozenset({"response-healing", "context-compression"})
WEB_PLUGIN_MEMBERS: Final = frozenset(
    {
        "id",
        "enabled",
        "max_results",
        "search_prompt",
        "engine",
        "include_domains",
        "exclude_domains",
    }
)

TRACE_MEMBER: Final = "trace"
UNBOUNDED_MEMBERS: Final = ("preset",)
# A member that may change the cost must not be written in another letter case.
COST_MEMBERS: Final = (*UNBOUNDED_MEMBERS, "models", "route", "plugins")


def named_models(members: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the asked model and its fallbacks, each with the member that names it.

    Raises Refused when the members name no models.
    """
    asked = members.get("model")
    if not isinstance(asked, str) or not asked:
        raise Refused(deny(Reason.INVALID_VALUE, "'model' must name a model.", "model"))
    fallbacks = members.get("models")
    if fallbacks is None:
        return [(asked, "model")]
    if (
        not isinstance(fallbacks, list)
        or len(fallbacks) > MAX_FALLBACKS
        or not all(isinstance(name, str) for name in fallbacks)
    ):
        message = f"'models' must be a list of at most {MAX_FALLBACKS} names of models."
        raise Refused(deny(Reason.INVALID_VALUE, message, "models"))
    return [(asked, "model"), *((name, "models") for name in fallbacks)]


def find_model(name: str, catalogue: Mapping[str, Model]) -> Model | None:
    """Return the listed model that a name means, whatever routing suffixes the name has.

    None when no such model is listed.
    """
    if len(name) > MAX_MODEL_NAME_CHARS:
        return None
    while (model := catalogue.get(name)) is None:
        suffix = next((end for end in ROUTING_SUFFIXES if name.endswith(end)), None)
        if suffix is None:
            return None
        name = name.removesuffix(suffix)
    return model


def count_web_searches(members: Mapping[str, Any]) -> int:
    """Return how many searches the plugins may do. Raises Refused for other plugins that cost."""
    plugins = members.get("plugins")
    if plugins is None:
        return 0
    if not isinstance(plugins, list):
        raise invalid("plugins", "a list")
    searches = 0
    for plugin in plugins:
        if not isinstance(plugin, dict):
            raise invalid("plugins", "a list of objects")
        refuse_misspelt(plugin, WEB_PLUGIN_MEMBERS)
        plugin_id = plugin.get("id")
        if isinstance(plugin_id, str) and plugin_id in FREE_PLUGINS:
            continue
        if plugin_id != "web" or not plugin.keys() <= WEB_PLUGIN_MEMBERS:
            raise unbounded("plugins")
        results = count(plugin, "max_results", MAX_WEB_RESULTS, "plugins.max_results")
        searches += DEFAULT_WEB_RESULTS if results is None else results
    return searches


def tag_report(body: Body, span: tuple[int, int] | None, tag: str) -> Edit | str:
    """Return how the tag gets into the body: an edit of `trace`, or a whole new member.

    `span` is the place of the value of `trace`, in characters. A trace of the client's own keeps
    its members, and gets one of ours beside them. No client can keep the tag out: a request that
    is never reported would count as not billed.
    """
    trace = f'{{"trace_id":"{tag}"}}'
    if span is None:
        return f'"{TRACE_MEMBER}":{trace}'
    start, end = span
    found = body.members[TRACE_MEMBER]
    if not isinstance(found, dict):
        return replace_value(body, start, end, trace)
    for name, own_start, own_end in member_spans(body.text[start:end]):
        if name == TAG_MEMBER:
            return replace_value(body, start + own_start, start + own_end, f'"{tag}"')
    comma = "," if found else ""
    return Edit(byte_offset(body, start + 1), 0, f'"{TAG_MEMBER}":"{tag}"{comma}')
