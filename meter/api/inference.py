"""The description of the inference routes, which Envoy serves from the provider's reply.

This application does not answer these routes. Its OpenAPI document describes them, so that one
document, and the page that shows it, has every route of the gateway. docs/errors.md explains the
codes.
"""

from typing import Any, Final

from meter.scopes import Scope

# By status: the codes of a refusal. Statuses that are missing here are the provider's own.
ERRORS: Final[dict[int, tuple[str, ...]]] = {
    400: (
        "conflicting_credentials",
        "cost_unbounded",
        "duplicate_key",
        "invalid_json",
        "invalid_request",
        "invalid_value",
        "query_not_allowed",
    ),
    401: ("missing_api_key", "invalid_api_key", "own_key_rejected"),
    402: ("insufficient_credits", "budget_exceeded"),
    403: (
        "account_suspended",
        "address_not_allowed",
        "insufficient_scope",
        "model_not_allowed",
        "no_own_key",
        "body_not_shown",
        "no_own_key",
        "invalid_request",
    ),
    404: ("model_not_found", "route_not_found"),
    408: ("request_timeout",),
    413: ("request_too_large",),
    415: ("unsupported_content_type", "unsupported_content_encoding"),
    426: ("invalid_request",),
    429: ("rate_limit_exceeded", "too_many_concurrent_requests"),
    431: ("invalid_request",),
    500: ("provider_unavailable",),
    502: ("provider_unavailable",),
    503: ("unavailable", "overloaded", "provider_unavailable"),
    504: ("provider_timeout",),
}
OPENAI_ERROR: Final[dict[str, Any]] = {
    "title": "OpenAIError",
    "description": "An error in OpenAI's shape. `code` is stable and meant for programs.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
ANTHROPIC_ERROR: Final[dict[str, Any]] = {
    "title": "AnthropicError",
    "description": "An error in Anthropic's shape. `code` is stable and meant for programs.",
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"type": "string", "const": "error"},
        "error": OPENAI_ERROR["properties"]["error"],
    },
}
OPENROUTER_ERROR: Final[dict[str, Any]] = {
    "title": "OpenRouterError",
    "description": "An error in OpenRouter's shape. `error_code` is stable and meant for programs. "
    "Errors of Envoy itself are in OpenAI's shape here too.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "code"],
            "properties": {
                "message": {"type": "string"},
                "code": {"type": ["integer", "string"]},
                "metadata": {
                    "type": "object",
                    "properties": {
                        "error_code": {"type": "string"},
                        "error_type": {"type": "string"},
                        "param": {"type": ["string", "null"]},
                    },
                },
            },
        }
    },
}
_MODEL: Final = {
    "type": "string",
    "description": "The id of a model; `GET /v1/models` lists them.",
    "examples": ["openai/gpt-4o-mini"],
}
_STREAM: Final = {
    "type": "boolean",
    "default": False,
    "description": "Send the answer as server-sent events, piece by piece.",
}
_MAX_TOKENS: Final = {
    "type": "integer",
    "minimum": 1,
    "description": "The most tokens that the model may write. A smaller number sets less credit "
    "aside while the request runs.",
}
# The provider defines every other member, of requests and of answers.
_REQUESTS: Final[dict[str, Any]] = {
    "ChatCompletionBody": {
        "description": "A conversation to continue, as OpenAI's chat API has it. The provider "
        "defines the members that are not listed here.",
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": _MODEL,
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["role"],
                    "properties": {
                        "role": {"type": "string", "examples": ["user"]},
                        "content": {"description": "Text, or a list of parts", "examples": ["Hi"]},
                    },
                },
            },
            "stream": _STREAM,
            "max_tokens": _MAX_TOKENS,
        },
        "examples": [
            {
                "model": "openai/gpt-4o-mini",
                "messages": [{"role": "user", "content": "Say hello"}],
                "max_tokens": 50,
            }
        ],
    },
    "CompletionBody": {
        "description": "A text to continue, as OpenAI's completions API has it.",
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {
            "model": _MODEL,
            "prompt": {"description": "Text, or a list of texts", "examples": ["Once upon a time"]},
            "stream": _STREAM,
            "max_tokens": _MAX_TOKENS,
        },
        "examples": [
            {"model": "openai/gpt-4o-mini", "prompt": "Once upon a time", "max_tokens": 50}
        ],
    },
    "MessageBody": {
        "description": "A conversation to continue, as Anthropic's Messages API has it. The "
        "provider defines the members that are not listed here.",
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": _MODEL,
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["role", "content"],
                    "properties": {
                        "role": {"type": "string", "examples": ["user"]},
                        "content": {"description": "Text, or a list of blocks", "examples": ["Hi"]},
                    },
                },
            },
            "system": {"description": "Text, or a list of blocks"},
            "stream": _STREAM,
            "max_tokens": _MAX_TOKENS,
        },
        "examples": [
            {
                "model": "anthropic/claude-sonnet-4.5",
                "messages": [{"role": "user", "content": "Say hello"}],
                "max_tokens": 50,
            }
        ],
    },
    "ResponseBody": {
        "description": "A conversation to continue, as OpenAI's Responses API has it. No response "
        "is kept: `input` has the whole conversation. The provider defines the members that are "
        "not listed here.",
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": _MODEL,
            "input": {"description": "Text, or a list of items", "examples": ["Say hello"]},
            "instructions": {"type": ["string", "null"]},
            "stream": _STREAM,
            "max_output_tokens": _MAX_TOKENS,
            "store": {"type": "boolean", "const": False, "default": False},
        },
        "examples": [
            {"model": "openai/gpt-4o-mini", "input": "Say hello", "max_output_tokens": 50}
        ],
    },
    "EmbeddingBody": {
        "description": "Texts to turn into vectors, as OpenAI's embeddings API has it.",
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": _MODEL,
            "input": {"description": "Text, or a list of texts", "examples": ["Say hello"]},
        },
        "examples": [{"model": "openai/text-embedding-3-small", "input": "Say hello"}],
    },
    "ImageBody": {
        "description": "A picture to draw, as OpenAI's and OpenRouter's image APIs have it.",
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {
            "model": _MODEL,
            "prompt": {"type": "string", "examples": ["A red panda in space"]},
            "n": {"type": "integer", "minimum": 1, "maximum": 10, "description": "Pictures."},
            "size": {
                "type": "string",
                "description": "`512`, `1K`, `2K`, `4K`, `auto`, or `WIDTHxHEIGHT` in pixels.",
            },
            "stream": _STREAM,
        },
        "examples": [
            {"model": "google/gemini-2.5-flash-image", "prompt": "A red panda in space", "n": 1}
        ],
    },
    "RerankBody": {
        "description": "A query, and documents to rank by how well they answer it.",
        "type": "object",
        "required": ["model", "query", "documents"],
        "properties": {
            "model": _MODEL,
            "query": {"type": "string", "examples": ["Who pays the toll?"]},
            "documents": {
                "type": "array",
                "minItems": 1,
                "maxItems": 10_000,
                "items": {"description": "Text, or an object with `text` or `image`"},
            },
            "top_n": {"type": "integer", "minimum": 1},
        },
        "examples": [
            {
                "model": "cohere/rerank-v3.5",
                "query": "Who pays the toll?",
                "documents": ["The ship pays.", "The sea is wide."],
            }
        ],
    },
    "SpeechBody": {
        "description": "A text to speak, as OpenAI's speech API has it.",
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": _MODEL,
            "input": {"type": "string", "examples": ["Good day"]},
            "voice": {"type": "string", "examples": ["alloy"]},
            "response_format": {"type": "string", "examples": ["mp3", "pcm"]},
            "speed": {"type": "number"},
        },
        "examples": [
            {"model": "hexgrad/kokoro-82m", "input": "Good day", "voice": "af_heart"},
        ],
    },
    "TranscriptionBody": {
        "description": "A sound to write down, in OpenRouter's form. OpenAI's is a form with a "
        "`file`.",
        "type": "object",
        "required": ["model", "input_audio"],
        "properties": {
            "model": _MODEL,
            "input_audio": {
                "type": "object",
                "required": ["data", "format"],
                "properties": {
                    "data": {"type": "string", "contentEncoding": "base64"},
                    "format": {"type": "string", "enum": ["wav", "mp3"]},
                },
            },
            "language": {"type": "string", "examples": ["en"]},
        },
    },
    "TranscriptionForm": {
        "description": "A sound to write down, as OpenAI's transcription API has it.",
        "type": "object",
        "required": ["model", "file"],
        "properties": {
            "model": _MODEL,
            "file": {
                "type": "string",
                "contentMediaType": "application/octet-stream",
                "description": "WAV (PCM) or MP3, with a name that ends in `.wav` or `.mp3`.",
            },
            "language": {"type": "string", "examples": ["en"]},
        },
    },
}
_REPLIES: Final[dict[str, Any]] = {
    name: {
        "description": "The provider's answer, unchanged. `usage` counts its tokens.",
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "object": {"type": "string", "examples": [kind]},
            "model": {"type": "string"},
            rows: {"type": "array", "items": {"type": "object"}},
            "usage": {"type": "object"},
        },
    }
    for name, kind, rows in (
        ("ChatCompletionReply", "chat.completion", "choices"),
        ("CompletionReply", "text_completion", "choices"),
        ("EmbeddingReply", "list", "data"),
        ("ResponseReply", "response", "output"),
    )
}
_REPLIES["AnthropicMessageReply"] = {
    "description": "The provider's answer, unchanged. `usage` counts its tokens; those of a cache "
    "stand beside `input_tokens`.",
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "type": {"type": "string", "examples": ["message"]},
        "model": {"type": "string"},
        "content": {"type": "array", "items": {"type": "object"}},
        "stop_reason": {"type": ["string", "null"]},
        "usage": {"type": "object"},
    },
}
_REPLIES["ImageReply"] = {
    "description": "The provider's answer, unchanged. `usage` counts its tokens.",
    "type": "object",
    "properties": {
        "created": {"type": "integer"},
        "data": {
            "type": "array",
            "items": {"type": "object", "properties": {"b64_json": {"type": "string"}}},
        },
        "usage": {"type": "object"},
    },
}
_REPLIES["RerankReply"] = {
    "description": "The provider's answer, unchanged. `usage` has the search units and the cost.",
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "results": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    },
}
_REPLIES["SpeechReply"] = {"description": "Sound.", "type": "string", "format": "binary"}
_REPLIES["TranscriptionReply"] = {
    "description": "The provider's answer, unchanged. `usage` has the seconds and the cost.",
    "type": "object",
    "properties": {"text": {"type": "string"}, "usage": {"type": "object"}},
}
MESSAGES_PATH: Final = "/messages"
RERANK_PATH: Final = "/rerank"
SPEECH_PATH: Final = "/audio/speech"
TRANSCRIPTIONS_PATH: Final = "/audio/transcriptions"
# By path: the end of a stream, where it is not OpenAI's of chats.
_ENDS: Final = {
    MESSAGES_PATH: "the event `message_stop`",
    "/responses": "the event `response.completed`, `response.incomplete` or `response.failed`",
}
# Path, operation, request, answer, summary, and whether the answer may be a stream.
_ROUTES: Final = (
    (
        "/chat/completions",
        "create_chat_completion",
        "ChatCompletionBody",
        "ChatCompletionReply",
        "Continue a conversation",
        True,
    ),
    (
        "/completions",
        "create_completion",
        "CompletionBody",
        "CompletionReply",
        "Continue a text",
        True,
    ),
    (
        "/embeddings",
        "create_embedding",
        "EmbeddingBody",
        "EmbeddingReply",
        "Turn texts into vectors",
        False,
    ),
    (
        "/images",
        "create_pictures",
        "ImageBody",
        "ImageReply",
        "Draw pictures, in OpenRouter's form",
        True,
    ),
    (
        "/images/generations",
        "create_image",
        "ImageBody",
        "ImageReply",
        "Draw pictures, in OpenAI's form",
        True,
    ),
    (
        MESSAGES_PATH,
        "create_message",
        "MessageBody",
        "AnthropicMessageReply",
        "Continue a conversation, in Anthropic's form",
        True,
    ),
    (
        RERANK_PATH,
        "rank_documents",
        "RerankBody",
        "RerankReply",
        "Rank documents by a query",
        False,
    ),
    (
        SPEECH_PATH,
        "create_speech",
        "SpeechBody",
        "SpeechReply",
        "Speak a text",
        False,
    ),
    (
        TRANSCRIPTIONS_PATH,
        "create_transcription",
        "TranscriptionBody",
        "TranscriptionReply",
        "Write down a sound",
        False,
    ),
    (
        "/responses",
        "create_response",
        "ResponseBody",
        "ResponseReply",
        "Continue a conversation, in the form of OpenAI's Responses",
        True,
    ),
)
# The paths below each prefix.
PATHS: Final = tuple(route[0] for route in _ROUTES)
# The bases of clients, each with the end of an operation's id and of its summary there.
BASES: Final = (
    ("/v1", "", ""),
    ("/api/v1/llm", "_at_former_path", " (at the path of the system that this one replaces)"),
    ("/api/v1", "_at_native_path", " (at the path of OpenRouter's clients)"),
)


def schemas() -> dict[str, Any]:
    """Return the schemas of the inference routes by name."""
    named = {
        **_REQUESTS,
        **_REPLIES,
        "OpenAIError": OPENAI_ERROR,
        "AnthropicError": ANTHROPIC_ERROR,
        "OpenRouterError": OPENROUTER_ERROR,
    }
    return {name: {"title": name, **schema} for name, schema in named.items()}


def paths() -> dict[str, Any]:
    """Return the inference routes by path."""
    found: dict[str, Any] = {}
    for prefix, suffix, note in BASES:
        for path, operation, request, reply, summary, may_stream in _ROUTES:
            content: dict[str, Any] = {"application/json": {"schema": _reference(reply)}}
            text = (
                "Hold the most that the request may cost, send the request to the provider, pass "
                "the answer on unchanged, and charge what the provider used. "
                f"The credential needs the scope `{Scope.INFERENCE}`."
            )
            asked = {"application/json": {"schema": _reference(request)}}
            if path == SPEECH_PATH:
                content = {"audio/*": {"schema": _reference(reply)}}
                text += (
                    "\n\nThe reply is sound and names no usage: the charge follows from the "
                    "provider's record, some seconds later."
                )
            if path == TRANSCRIPTIONS_PATH:
                asked["multipart/form-data"] = {"schema": _reference("TranscriptionForm")}
            if may_stream:
                content["text/event-stream"] = {"schema": {"type": "string"}}
                last = _ENDS.get(path, "`data: [DONE]`")
                text += (
                    "\n\nWith `stream: true` the answer is a stream of server-sent events, which "
                    f"ends with {last}. An error in the middle of a stream is an event that holds "
                    "`error`; the status stays 200."
                )
            found[prefix + path] = {
                "post": {
                    "tags": ["Inference"],
                    "summary": summary + note,
                    "description": text,
                    "operationId": operation + suffix,
                    "security": [{"apiKey": []}, {"apiKeyHeader": []}],
                    "requestBody": {
                        "required": True,
                        "content": asked,
                    },
                    "responses": {
                        "200": {"description": "The provider's answer", "content": content},
                        **{
                            str(status): error(codes, prefix + path)
                            for status, codes in ERRORS.items()
                        },
                    },
                }
            }
    return found


def error(codes: tuple[str, ...], path: str) -> dict[str, Any]:
    """Return the description of an answer with one of these codes, in the shape of its clients."""
    shape = "OpenAIError"
    if path.endswith(MESSAGES_PATH):
        shape = "AnthropicError"
    elif path.startswith("/api/v1/") and not path.startswith("/api/v1/llm/"):
        shape = "OpenRouterError"
    return {
        "description": "`code` is " + " or ".join(f"`{code}`" for code in codes),
        "content": {"application/json": {"schema": _reference(shape)}},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
