"""Decides a whole answer, what it used and what it costs, before a byte of it is sent."""

import json
import random
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tollkeeper.simulator.answers.examples import example_of
from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.provider_work import CALL_TOKENS, ProviderWork, work_for
from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.answers.tools import ToolCall
from tollkeeper.simulator.answers.words import (
    EXAMPLE_WORD,
    OPENING,
    REASONING_OPENING,
    Vocabulary,
)
from tollkeeper.simulator.asking import MEASURED, WITHOUT_COMPLETION, Ask, Endpoint
from tollkeeper.simulator.bill import BillRow
from tollkeeper.simulator.catalogue import Catalogue, Model
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.pricing import Usage, completion_cost_picos, cost_picos, to_usd

TEXT_TOKENS_MIN = 8
TEXT_TOKENS_SPAN = 33
REASONING_TOKENS_MIN = 4
REASONING_TOKENS_SPAN = 16
CACHED_PROMPT_MIN_TOKENS = 64
CACHE_BLOCK_TOKENS = 16
WEB_RESULT_PICOS = 4_000_000_000
"""The price of one result of the web plugin: 4 US dollars per thousand."""
PICTURE_TOKENS = (1_290, 6_240)
"""The tokens of a picture: one of Gemini's, and the dearest that is documented."""
TIER_SIDES = {"512": 512, "1K": 1_024, "2K": 2_048, "4K": 4_096}
ID_LETTERS = string.ascii_letters + string.digits
ID_LENGTH = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request."""

    text: str
    finish_reason: str
    reasoning: str = ""
    tool_name: str | None = None
    tool_call_id: str = ""
    is_free_text: bool = False
    text_tokens: int = 0
    reasoning_tokens: int = 0
    picture_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A decided answer, with all that its bill row needs; it only has to be sent."""

    generation_id: str
    at: datetime
    ask: Ask
    model: Model
    choices: tuple[Choice, ...]
    usage: Usage
    cost_picos: int
    completion_cost_picos: int = 0

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason if self.choices else "stop"

    def to_row(self, behaviour: Behaviour, request_id: str | None, key_sha256: str) -> BillRow:
        return BillRow(
            generation_id=self.generation_id,
            model=self.model.id,
            cost=to_usd(self.cost_picos),
            at=self.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            prompt_tokens=self.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens,
            reasoning_tokens=self.usage.reasoning_tokens,
            is_streamed=self.ask.is_stream,
            finish_reason=self.finish_reason,
            cached_tokens=self.usage.cached_tokens,
            trace_id=self.ask.trace.trace_id,
            trace_metadata=self.ask.trace.metadata,
            has_report=not behaviour.omit_report,
            has_record=not behaviour.omit_generation,
            request_id=request_id,
            key_sha256=key_sha256,
            record_delay_ms=behaviour.record_delay_ms,
            record_zero_ms=behaviour.record_zero_ms,
        )


class Answerer:
    """Turns requests into answers; the same request and seed give the same words."""

    def __init__(
        self,
        dialect: ProviderDialect,
        catalogue: Catalogue,
        vocabulary: Vocabulary,
        now: Callable[[], datetime],
    ) -> None:
        self._dialect = dialect
        self._catalogue = catalogue
        self._vocabulary = vocabulary
        self._now = now
        self._ids = random.Random()  # Ids must differ between runs, not be secret

    def answer(self, ask: Ask, model_name: str, behaviour: Behaviour) -> Answer:
        """Raises Refusal when no model can serve the request."""
        model = self._find_model(ask, model_name)
        prices = model.prices.times(behaviour.price_factor)
        count = 0 if ask.endpoint in WITHOUT_COMPLETION else ask.choice_count
        call = ask.tool_call if behaviour.text is None else None
        choices = tuple(
            self._draw(ask, model, behaviour)
            if ask.endpoint is Endpoint.IMAGES
            else self._speak(ask, model, behaviour, index)
            if call is None
            else self._call(ask, call, behaviour)
            for index in range(count)
        )
        work = work_for(ask, model, is_greedy=behaviour.is_greedy)
        usage = _usage(ask, model, choices, work, behaviour)
        is_empty = ask.endpoint not in WITHOUT_COMPLETION and not usage.completion_tokens
        is_free = is_empty and self._dialect.is_empty_reply_free
        if prices.at(usage.prompt_tokens).exceed(ask.max_price_usd):
            raise Refusal(404, f"No endpoints found for {model_name} within the maximum price")
        cost = cost_picos(prices, usage) + WEB_RESULT_PICOS * ask.search_results + work.picos
        at, letters = self._now(), self._random_id(ID_LENGTH)
        generation_id = self._dialect.make_id(at, letters)
        if ask.endpoint is Endpoint.RESPONSES and not self._dialect.has_openrouter_members:
            # OpenRouter alone has one id for the reply and another one for its own record.
            generation_id = f"resp_{letters}"
        return Answer(
            generation_id=generation_id,
            at=at,
            ask=ask,
            model=model,
            choices=choices,
            usage=usage,
            cost_picos=0 if is_free else cost,
            completion_cost_picos=0 if is_free else completion_cost_picos(prices, usage),
        )

    def _find_model(self, ask: Ask, name: str) -> Model:
        model = self._catalogue.find(name)
        if model is None:
            raise self._dialect.unknown_model(name)
        self._dialect.check_members(ask.members, model)
        if ask.endpoint is Endpoint.IMAGES and not model.may_draw:
            raise Refusal(404, f"No endpoints found for {name} that draw")
        if model.endpoint != (ask.endpoint if ask.endpoint in WITHOUT_COMPLETION else None):
            raise Refusal(404, f"No endpoints found for {name} that do {ask.endpoint}")
        if ask.prompt.image_count and not model.may_see_images:
            raise Refusal(404, "No endpoints found that support image input")
        return model

    def _speak(self, ask: Ask, model: Model, behaviour: Behaviour, index: int) -> Choice:
        draw = zlib.crc32(b"%d.%d" % (self._vocabulary.seed, index), ask.digest)
        thought_tokens = 0
        if model.has_reasoning and ask.may_reason:
            thought_tokens = REASONING_TOKENS_MIN + (draw >> 16) % REASONING_TOKENS_SPAN
        words_most = TEXT_TOKENS_MIN + draw % TEXT_TOKENS_SPAN
        tokens = thought_tokens + self._vocabulary.whole_sentences(draw, words_most)
        text = behaviour.text
        if text is None and ask.json_schema is not None:
            text = _json_answer(ask.json_schema)
        if text is not None:
            tokens = thought_tokens + len(text.encode("utf-8", "surrogatepass")) // 4 + 1
        allowed = tokens
        if behaviour.is_greedy and ask.completion_limit_tokens is not None:
            tokens = max(tokens, ask.completion_limit_tokens)
        if behaviour.completion_tokens is not None:
            # The simulator is told to ignore the limit of the request.
            allowed = behaviour.completion_tokens
        elif ask.completion_limit_tokens is not None:
            allowed = min(tokens, ask.completion_limit_tokens)
        thought_tokens = min(thought_tokens, allowed)
        spoken_tokens = allowed - thought_tokens
        modalities = ask.members.get("modalities")
        is_drawn = model.may_draw and isinstance(modalities, list) and "image" in modalities
        return Choice(
            text=self._vocabulary.text(draw, spoken_tokens) if text is None else text,
            finish_reason="length" if allowed < tokens else "stop",
            reasoning=self._vocabulary.text(draw >> 8, thought_tokens, REASONING_OPENING),
            text_tokens=spoken_tokens,
            reasoning_tokens=thought_tokens,
            # A picture is billed whole, whatever the limit.
            picture_tokens=PICTURE_TOKENS[behaviour.is_greedy] if is_drawn else 0,
        )

    def _draw(self, ask: Ask, model: Model, behaviour: Behaviour) -> Choice:
        tokens = PICTURE_TOKENS[behaviour.is_greedy]
        side = TIER_SIDES.get(str(ask.members.get("size") or ask.members.get("resolution")), 1_024)
        thoughts = (model.max_completion_tokens or 0) if behaviour.is_greedy else 0
        return Choice(
            text="",
            finish_reason="stop",
            reasoning_tokens=thoughts,
            picture_tokens=tokens * max(1, side**2 * 2 // 3 // 1_024**2),
        )

    def _call(self, ask: Ask, call: ToolCall, behaviour: Behaviour) -> Choice:
        arguments = call.arguments(EXAMPLE_WORD)
        tokens = min(8 + len(arguments) // 4, ask.completion_limit_tokens or 2**31)
        if behaviour.completion_tokens is not None:
            tokens = behaviour.completion_tokens
        return Choice(
            text=arguments,
            finish_reason="tool_calls",
            tool_name=call.tool.name,
            tool_call_id=f"call_{self._random_id(ID_LENGTH)}",
            is_free_text=call.tool.is_free_text,
            text_tokens=tokens,
        )

    def _random_id(self, length: int) -> str:
        return "".join(self._ids.choices(ID_LETTERS, k=length))


def _json_answer(schema: dict[str, object]) -> str:
    """JSON text that fits a schema; a request that gives none gets an object that says so."""
    if not schema:
        return json.dumps({"simulated": True, "answer": OPENING})
    return json.dumps(example_of(schema, EXAMPLE_WORD), ensure_ascii=False)


def _usage(
    ask: Ask,
    model: Model,
    choices: tuple[Choice, ...],
    work: ProviderWork,
    behaviour: Behaviour,
) -> Usage:
    if ask.endpoint in MEASURED:
        units, searches = ask.measure.billed_units, ask.measure.search_units
        return Usage(ask.prompt_tokens, 0, unit_count=units, call_count=max(1, searches))
    # A step of a tool is a reply of its own, within the limit of one.
    limit = ask.completion_limit_tokens or CALL_TOKENS
    step_tokens = limit if behaviour.is_greedy else min(limit, CALL_TOKENS)
    prompt_tokens = behaviour.prompt_tokens
    if prompt_tokens is None:
        prompt_tokens = work.prompt_tokens(ask.prompt_tokens, step_tokens, model.context_length)
    cached_tokens = written_tokens = 0
    # Half of every second long prompt is found in the cache, where there is one.
    is_hit = ask.digest % 2 == 1 and prompt_tokens >= CACHED_PROMPT_MIN_TOKENS
    if is_hit and model.prices.cache_read_picos is not None:
        cached_tokens = prompt_tokens // 2 // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS
    if ask.prompt.has_cache_control and model.prices.cache_write_picos is not None:
        written_tokens = (prompt_tokens - cached_tokens) // 2
    searches = work.searches
    if behaviour.unasked_searches is not None:
        searches = behaviour.unasked_searches
    reasoning_tokens = sum(choice.reasoning_tokens for choice in choices)
    picture_tokens = sum(choice.picture_tokens for choice in choices)
    written_in_steps = work.steps * step_tokens * len(choices)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=sum(choice.text_tokens for choice in choices)
        + reasoning_tokens
        + picture_tokens
        + written_in_steps,
        cached_tokens=cached_tokens,
        cache_write_tokens=written_tokens,
        audio_tokens=min(ask.prompt.audio_tokens, prompt_tokens),
        reasoning_tokens=reasoning_tokens,
        image_count=(ask.prompt.image_count + work.pictures) * (work.steps + 1),
        search_count=searches * max(1, ask.choice_count),
        picture_tokens=picture_tokens,
        call_count=work.steps + 1,
        price_fifths=work.price_fifths,
    )
