"""Members of a request body that change no more of its cost than its text and its limits bound.

The list is closed (R6): a member that is neither here nor has a rule is refused, because nobody
knows what it may cost. It has the members of OpenAI's chat, completions and embeddings, and those
that OpenRouter and the models behind it take. docs/adr has the reasons; to add a member, say what
bounds its cost.
"""

from typing import Final

# They choose among replies, or shape them. Limits of the reply bound what it costs.
_SAMPLING: Final = (
    *("temperature", "top_p", "top_k", "top_a", "min_p", "typical_p", "seed", "stop"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias"),
    *("logprobs", "top_logprobs", "verbosity", "include_reasoning", "echo", "suffix"),
    *("dimensions", "encoding_format", "input_type", "truncate"),
    # Pictures of the largest size have fewer tokens than the bound of one (ADR 0005).
    "image_config",
)
# Their text is part of the prompt, and its bytes are counted. Functions run at the client.
_PROMPT: Final = (
    *("functions", "function_call", "tool_choice", "parallel_tool_calls", "max_tool_calls"),
    *("response_format", "structured_outputs", "grammar"),
)
# They choose how the reply travels, who is told of it, or what is kept, at no price.
_DELIVERY: Final = (
    *("stream", "stream_options", "usage", "user", "metadata", "store", "session_id", "trace"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_retention", "debug"),
)
# They choose among providers, whose prices `max_price` bounds, or shorten the prompt.
_ROUTING: Final = ("provider", "route", "transforms")

HARMLESS_MEMBERS: Final = frozenset((*_SAMPLING, *_PROMPT, *_DELIVERY, *_ROUTING))
REASONING_MEMBERS: Final = frozenset({"max_tokens", "effort", "exclude", "enabled", "summary"})
