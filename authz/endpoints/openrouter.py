"""The members of a request body that only OpenRouter knows, and what they may cost.

- `models` names fallbacks beside `model`; the suffixes of a model's name say how to route to it,
  and `:online` adds web search to the request;
- `plugins` run at OpenRouter; searches and recognised files are billed apart from tokens;
- `preset` stands for parameters that are stored at OpenRouter, where they cannot be read;
- `trace` is repeated in OpenRouter's report of the request (Broadcast).

- `provider` chooses among the providers of a model; its `max_price` keeps away those that are
  dearer than the estimate assumes.

`transforms` and `route` pass as they are: they shorten the prompt, or choose among the models that
are named.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from authz.decision import Edit, Reason, Refused, deny, echo
from authz.endpoints.advice import ENGINES, FILE_ENGINES, PLUGINS
from authz.endpoints.body import Body, byte_offset, member_spans, replace_value
from authz.endpoints.members import (
    count,
    invalid,
    read_usd,
    refuse_misspelt,
    refuse_unknown,
    unbounded,
)
from authz.endpoints.server_tools import PRICED_ENGINES, SEARCH_PICOS
from meter.money import format_usd
from meter.pricing.prices import Model, PriceCeiling
from meter.providers.openrouter import ROUTING_SUFFIXES
from meter.providers.openrouter.broadcast import TAG_MEMBER
from meter.values import light_value

MAX_FALLBACKS: Final = 16
# No listed model has a longer id. Suffixes are removed one at a time, each with a copy of the rest.
MAX_MODEL_NAME_CHARS: Final = 256

MAX_WEB_RESULTS: Final = 10
DEFAULT_WEB_RESULTS: Final = 5
FREE_PLUGINS: Final = frozenset({"response-healing", "context-compression"})
# The most searches that a model does of its own for one request, as no provider documents more.
OPTIONAL_SEARCHES: Final = 10
WEB_PLUGIN_MEMBERS: Final = frozenset(
    {
        *("id", "enabled", "max_results", "max_uses", "search_prompt", "engine", "mode"),
        *("include_domains", "exclude_domains", "user_location"),
    }
)
FILE_PLUGIN_MEMBERS: Final = frozenset({"id", "enabled", "pdf"})
_PDF_MEMBERS: Final = frozenset({"engine"})
# Engines that read files at no price beside tokens. Another one, or none named, may recognise
# characters: a document has at most so many pages there, each at this price.
FREE_FILE_ENGINES: Final = frozenset({"native", "cloudflare-ai", "pdf-text"})
PRICED_FILE_ENGINE: Final = "mistral-ocr"
MAX_FILE_PAGES: Final = 1_000
PAGE_PICOS: Final = 2_000_000_000

SEARCH_OPTIONS_MEMBER: Final = "web_search_options"
_SEARCH_OPTIONS: Final = frozenset({"search_context_size", "user_location"})
# The listed price is that of the default size. The dearest documented ratio of another size to it
# is 2.4 (Perplexity: 5, 8 and 12 US dollars for a thousand requests).
SEARCH_WEIGHTS: Final[Mapping[str, int]] = {"low": 1, "medium": 2, "high": 3}

PROVIDER_MEMBER: Final = "provider"
MAX_PRICE_MEMBER: Final = "max_price"
MAX_PRICE_NAMED_USD: Final = 1_000_000
# Price limits of tokens are US dollars for this many.
TOKENS_PER_PRICE_LIMIT: Final = 1_000_000
# The provider compares binary floating point: an equal price must not seem a little dearer.
PRICE_LIMIT_SLACK_PARTS: Final = 1_000_000
_PRICE_LIMITS: Final = frozenset({"prompt", "completion", "request", "image", "audio"})
_PROVIDER_MEMBERS: Final = frozenset({MAX_PRICE_MEMBER})

TRACE_MEMBER: Final = "trace"
UNBOUNDED_MEMBERS: Final = ("preset",)
# A member that may change the cost must not be written in another letter case.
COST_MEMBERS: Final = (
    *UNBOUNDED_MEMBERS,
    *("models", "route", "plugins", PROVIDER_MEMBER, SEARCH_OPTIONS_MEMBER),
)


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


def split_suffixes(name: str, listed: Collection[str]) -> tuple[str, str]:
    """Return the listed part of a name that `find_model` found, and its routing suffixes."""
    base = name
    while base not in listed:
        base = base.removesuffix(next(end for end in ROUTING_SUFFIXES if base.endswith(end)))
    return base, name[len(base) :]


@light_value
class PluginWork:
    """The most that plugins and options of a search do for one prompt.

    `searches` cost the model's listed price, times `search_weight`. `search_picos` is the price of
    a search by an engine of OpenRouter's, and `file_picos` that of reading one file.
    """

    searches: int = 0
    search_weight: int = 1
    search_picos: int = 0
    file_picos: int = MAX_FILE_PAGES * PAGE_PICOS

    @property
    def fills_context(self) -> bool:
        """Return whether results of searches are put into the prompt."""
        return self.searches > 0 or self.search_picos > 0


NO_PLUGINS: Final = PluginWork()


def read_plugins(members: Mapping[str, Any], is_online: bool) -> PluginWork:
    """Return the most that a body's plugins and search options do. Raises Refused.

    `is_online` is true when the name of a model asks for web search.
    """
    plugins = members.get("plugins")
    options = members.get(SEARCH_OPTIONS_MEMBER)
    if plugins is None and options is None and not is_online:
        return NO_PLUGINS
    searches = search_picos = 0
    weight = 1
    # Nobody documents which of several engines reads a file.
    engines: list[int] = []
    if plugins is not None and not isinstance(plugins, list):
        raise invalid("plugins", "a list")
    for plugin in plugins or ():
        if not isinstance(plugin, dict):
            raise invalid("plugins", "a list of objects")
        refuse_misspelt(plugin, WEB_PLUGIN_MEMBERS | FILE_PLUGIN_MEMBERS)
        plugin_id = plugin.get("id")
        if isinstance(plugin_id, str) and plugin_id in FREE_PLUGINS:
            continue
        if plugin_id == "file-parser" and plugin.keys() <= FILE_PLUGIN_MEMBERS:
            engines.append(_read_file_engine(plugin))
        elif plugin_id == "web" and plugin.keys() <= WEB_PLUGIN_MEMBERS:
            searches += _count_searches(plugin)
            search_picos += SEARCH_PICOS
        else:
            raise unbounded("plugins", PLUGINS)
    if is_online:
        searches = max(searches, DEFAULT_WEB_RESULTS)
        search_picos = max(search_picos, SEARCH_PICOS)
    if options is not None:
        if not isinstance(options, dict):
            raise invalid(SEARCH_OPTIONS_MEMBER, "an object")
        refuse_misspelt(options, _SEARCH_OPTIONS)
        refuse_unknown(options, _SEARCH_OPTIONS, f"{SEARCH_OPTIONS_MEMBER}.")
        size = options.get("search_context_size") or "low"
        if not isinstance(size, str) or size not in SEARCH_WEIGHTS:
            param = f"{SEARCH_OPTIONS_MEMBER}.search_context_size"
            raise invalid(param, "'low', 'medium' or 'high'")
        weight = SEARCH_WEIGHTS[size]
        searches += OPTIONAL_SEARCHES
    file_picos = max(engines, default=NO_PLUGINS.file_picos)
    return PluginWork(searches, weight, search_picos, file_picos)


def _count_searches(plugin: dict[str, Any]) -> int:
    """Return the searches of the web plugin that cost the model's price. Raises Refused.

    Without a name of an engine of OpenRouter's, the model's provider may search.
    """
    results = count(plugin, "max_results", MAX_WEB_RESULTS, "plugins.max_results")
    uses = count(plugin, "max_uses", MAX_WEB_RESULTS, "plugins.max_uses")
    engine = plugin.get("engine")
    if engine in PRICED_ENGINES:
        return 0
    if engine not in (None, "native"):
        raise unbounded("plugins", ENGINES)
    return max(DEFAULT_WEB_RESULTS if results is None else results, uses or 0)


def _read_file_engine(plugin: dict[str, Any]) -> int:
    """Return the most that reading one file costs beside tokens. Raises Refused."""
    pdf = plugin.get("pdf")
    if pdf is None:
        return NO_PLUGINS.file_picos
    if not isinstance(pdf, dict):
        raise invalid("plugins.pdf", "an object")
    refuse_misspelt(pdf, _PDF_MEMBERS)
    engine = pdf.get("engine")
    if not pdf.keys() <= _PDF_MEMBERS or engine not in (
        *(None, PRICED_FILE_ENGINE),
        *FREE_FILE_ENGINES,
    ):
        raise unbounded("plugins", FILE_ENGINES)
    # A plugin that is switched off leaves the choice of an engine to OpenRouter.
    is_chosen = plugin.get("enabled") in (None, True)
    return 0 if is_chosen and engine in FREE_FILE_ENGINES else NO_PLUGINS.file_picos


def read_price_limits(members: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return the price limits that the body names itself, in US dollars. Raises Refused."""
    provider = members.get(PROVIDER_MEMBER)
    if provider is None:
        return {}
    if not isinstance(provider, dict):
        raise invalid(PROVIDER_MEMBER, "an object")
    refuse_misspelt(provider, _PROVIDER_MEMBERS)
    limits = provider.get(MAX_PRICE_MEMBER)
    param = f"{PROVIDER_MEMBER}.{MAX_PRICE_MEMBER}"
    if limits is None:
        return {}
    if not isinstance(limits, dict):
        raise invalid(param, "an object")
    refuse_misspelt(limits, _PRICE_LIMITS)
    found = {}
    for name, value in limits.items():
        if name not in _PRICE_LIMITS:
            message = f"'{param}' has no member '{echo(name)}'."
            raise Refused(deny(Reason.INVALID_VALUE, message, param))
        if value is not None:
            found[name] = read_usd(value, MAX_PRICE_NAMED_USD, f"{param}.{name}")
    return found


def limit_price(body: Body, span: tuple[int, int] | None, ceiling: PriceCeiling) -> Edit | str:
    """Return how the dearest prices of the estimate get into the body: an edit, or a new member.

    `span` is the place of the value of `provider`, in characters. Of a limit of the client's own
    and of ours, the lower one is written; so no endpoint that is dearer than the hold can serve.
    """
    if span is None:
        return limit_price_member(ceiling)
    start, end = span
    provider = body.members[PROVIDER_MEMBER]
    if provider is None:
        text = f'{{"{MAX_PRICE_MEMBER}":{_price_limits_text(ceiling)}}}'
        return replace_value(body, start, end, text)
    own = read_price_limits(body.members)
    ours = _price_limits(ceiling)
    lower = {name: min(own.get(name, limit), limit) for name, limit in ours.items()}
    text = _write_limits({**own, **lower})
    for name, own_start, own_end in member_spans(body.text[start:end]):
        if name == MAX_PRICE_MEMBER:
            return replace_value(body, start + own_start, start + own_end, text)
    comma = "," if provider else ""
    return Edit(byte_offset(body, start + 1), 0, f'"{MAX_PRICE_MEMBER}":{text}{comma}')


def limit_price_member(ceiling: PriceCeiling) -> str:
    """Return the member that tells the provider the prices, for a body that has none."""
    return f'"{PROVIDER_MEMBER}":{{"{MAX_PRICE_MEMBER}":{_price_limits_text(ceiling)}}}'


def _price_limits(ceiling: PriceCeiling) -> dict[str, Decimal]:
    """Return a ceiling in the units of OpenRouter's `max_price`, with the slack."""
    limits = {
        "prompt": ceiling.prompt_picos * TOKENS_PER_PRICE_LIMIT,
        "completion": ceiling.completion_picos * TOKENS_PER_PRICE_LIMIT,
        "request": ceiling.request_picos,
    }
    if ceiling.image_picos is not None:
        limits["image"] = ceiling.image_picos
    return {
        name: Decimal(format_usd(picos + picos // PRICE_LIMIT_SLACK_PARTS))
        for name, picos in limits.items()
    }


@lru_cache(maxsize=4_096)
def _price_limits_text(ceiling: PriceCeiling) -> str:
    return _write_limits(_price_limits(ceiling))


def _write_limits(limits: Mapping[str, Decimal]) -> str:
    return "{" + ",".join(f'"{name}":{limit:f}' for name, limit in limits.items()) + "}"


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
